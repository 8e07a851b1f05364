"""Builds the documentation as a site: build.py MDBOOK FOLDER SOURCE

The pages are those of SUMMARY.md. They stay where they are and work on GitHub: a copy of each is made for mdBook, where links
that lead out of the book begin with SOURCE, the address of the repository's files. At the end every link of the site is followed.
"""

import html.parser
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
LINK = re.compile(r"(!?)(\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^()\s]+)\)")


def target(page, link):
    """The file that a link of a page leads to, by its path in the repository; None outside of it."""
    path = urllib.parse.unquote(link.partition("#")[0])
    file = pathlib.Path(os.path.normpath(ROOT / page / ".." / path)) if path else ROOT / page
    return file.relative_to(ROOT) if file.is_relative_to(ROOT) else None


def is_outside(link):
    return re.match(r"[a-z]+:", link) is not None


def lines_with_links(text):
    """Each line, and whether it can have links: it is not in a block of code."""
    fence = None
    for line in text.splitlines(keepends=True):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and fence is None:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = None
        yield line, fence is None and not mark


def staged(page, pages, source, folder):
    """The text of a page for mdBook; pictures are copied into the folder."""

    def rewritten(match):
        embeds, text, link = match.groups()
        if is_outside(link):
            return match[0]
        file = target(page, link)
        if embeds:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, folder / file)
        elif file not in pages:
            return f"{text}({urllib.parse.urljoin(f'{source}/{page}', link)})"
        # As mdBook calls these pages.
        return f"{embeds}{text}({link.replace('README.md', 'index.md')})"

    text = (ROOT / page).read_text(encoding="utf-8")
    return "".join(LINK.sub(rewritten, line) if has else line for line, has in lines_with_links(text))


def stage(source, folder):
    summary = (HERE / "SUMMARY.md").read_text(encoding="utf-8")
    listed = [target("docs/book/SUMMARY.md", match[3]) for match in LINK.finditer(summary)]
    pages = set(listed)
    for page in listed:
        file = folder / "src" / page
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(staged(page, pages, source, folder / "src"), encoding="utf-8")
    from_root = LINK.sub(lambda match: f"{match[2]}({target('docs/book/SUMMARY.md', match[3])})", summary)
    (folder / "src/SUMMARY.md").write_text(from_root, encoding="utf-8")
    for name in ("book.toml", "style.css"):
        shutil.copyfile(HERE / name, folder / name)
    (folder / "theme").mkdir()
    shutil.copyfile(ROOT / "charts/icon.svg", folder / "theme/favicon.svg")


class Page(html.parser.HTMLParser):
    """The links of a page of the site, and what they can lead to in it."""

    def __init__(self, file):
        super().__init__()
        self.links, self.ids = [], {"", "top"}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src") and value and not is_outside(value) and not value.startswith("//"):
                self.links.append(value)


def broken(folder):
    """The links of the site that lead to nothing."""
    pages = {file: Page(file) for file in folder.rglob("*.html")}
    for file, page in sorted(pages.items()):
        # This page is answered at any address, so its links begin at the root of the site.
        if file.name == "404.html":
            continue
        for link in page.links:
            path, _, anchor = urllib.parse.unquote(link).partition("#")
            there = (file.parent / path).resolve() if path else file
            there = there / "index.html" if there.is_dir() else there
            if not there.exists() or (there in pages and anchor not in pages[there].ids):
                yield f"{file.relative_to(folder)}: {link}"


def main(mdbook, folder, source):
    folder = pathlib.Path(folder).resolve()
    work = folder.with_name(folder.name + "-source")
    for old in (folder, work):
        shutil.rmtree(old, ignore_errors=True)
    stage(source.rstrip("/"), work)
    quiet = {"MDBOOK_LOG": "warn"} | os.environ
    subprocess.run([mdbook, "build", "--dest-dir", folder, work], check=True, env=quiet)
    wrong = list(broken(folder))
    if wrong:
        sys.exit("links of the site that lead to nothing:\n" + "\n".join(wrong))
    print(f"{folder}/index.html")


main(*sys.argv[1:])
