"""An encrypted database of orders, with the key in hexadecimal digits in a file:

sqlcipher.py DATABASE KEY-FILE add ORDER
sqlcipher.py DATABASE KEY-FILE list
sqlcipher.py DATABASE KEY-FILE rekey NEW-KEY-FILE
"""

import pathlib
import sys

from sqlcipher3 import dbapi2 as sqlite


def raw_key(file):
    """The key as SQLCipher takes one that it does not derive from a password."""
    return f"\"x'{pathlib.Path(file).read_text().strip()}'\""


def main(database, key_file, command, argument=None):
    connection = sqlite.connect(database)
    connection.execute(f"PRAGMA key = {raw_key(key_file)}")
    # SQLCipher notices a wrong key when it reads.
    connection.execute("SELECT count(*) FROM sqlite_master")
    connection.execute("CREATE TABLE IF NOT EXISTS orders (text TEXT NOT NULL)")
    if command == "add":
        connection.execute("INSERT INTO orders VALUES (?)", (argument,))
    elif command == "rekey":
        connection.commit()
        connection.execute(f"PRAGMA rekey = {raw_key(argument)}")
    else:
        for (text,) in connection.execute("SELECT text FROM orders"):
            print(text)
    connection.commit()
    connection.close()


main(*sys.argv[1:])
