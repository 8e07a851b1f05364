use super::*;

const READ: Access = Access { mode: 0o400, uid: None, gid: None };

/// A folder in memory.
fn in_memory() -> TempDir {
    TempDir::new_in("/dev/shm").unwrap()
}

fn origin(versions: &[i32]) -> Origin {
    let file = |version: i32| FileOrigin {
        name: format!("v{version}"),
        sha256: format!("sha256 of {version}"),
        public_key_sha256: String::new(),
        candidates_sha256: None,
    };
    Origin {
        settings: "settings".to_owned(),
        current: versions.last().copied().unwrap(),
        versions: versions.iter().map(|version| (*version, file(*version))).collect(),
    }
}

fn write(place: &TempDir, versions: &[i32], access: Access) -> Result<(), Failure> {
    let contents = versions.iter().map(|version| (*version, Zeroizing::new(format!("key {version}").into_bytes())));
    Folder::open(place.path())?.replace(&origin(versions), &contents.collect(), access)
}

fn read(place: &TempDir, name: &str) -> Option<String> {
    fs::read_to_string(place.path().join(name)).ok()
}

/// All names in a folder, without those that differ from run to run.
fn names(place: &TempDir) -> Vec<String> {
    let names = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.map(|name| if name.starts_with(SET) { SET.to_owned() } else { name }).collect();
    names.sort();
    names
}

#[test]
fn set_is_replaced_at_once() {
    let place = in_memory();
    write(&place, &[1, 2], READ).unwrap();
    assert_eq!(read(&place, "v1").as_deref(), Some("key 1"));
    assert_eq!(read(&place, "current").as_deref(), Some("key 2"));
    assert_eq!(read(&place, "version").as_deref(), Some("2"));
    let first = place.path().join("..data").canonicalize().unwrap();
    write(&place, &[2, 3], READ).unwrap();
    assert_eq!(read(&place, "current").as_deref(), Some("key 3"));
    assert_eq!(read(&place, "v1"), None);
    assert!(!first.exists(), "the earlier set is removed");
    assert_eq!(names(&place), ["..data", SET, ORIGIN, "current", "v2", "v3", "version"]);
    assert_eq!(Folder::open(place.path()).unwrap().origin(), Some(origin(&[2, 3])));
}

#[test]
fn files_have_their_permissions_whatever_the_umask() {
    for (mode, folder_mode) in [(0o400, 0o711), (0o440, 0o751), (0o444, 0o755), (0o600, 0o711)] {
        let place = in_memory();
        write(&place, &[1], Access { mode, ..READ }).unwrap();
        let mode_of = |name: &str| fs::metadata(place.path().join(name)).unwrap().mode() & 0o7777;
        for name in ["v1", "current", "version"] {
            assert_eq!(mode_of(name), mode, "{name}");
        }
        assert_eq!(mode_of(ORIGIN), 0o444);
        assert_eq!(mode_of(DATA), folder_mode, "{mode:o}");
    }
}

#[test]
fn file_of_another_program_is_not_replaced() {
    let place = in_memory();
    fs::write(place.path().join("v2"), "mine").unwrap();
    let failure = write(&place, &[1, 2], READ).unwrap_err();
    assert!(failure.why.contains("v2 is there already"), "{failure:?}");
    assert_eq!((read(&place, "v2").as_deref(), read(&place, "v1")), (Some("mine"), None));
    symlink("/etc/hostname", place.path().join("v3")).unwrap();
    assert!(write(&place, &[3], READ).unwrap_err().why.contains("v3 is there already"));
}

#[test]
fn rest_of_a_killed_process_is_removed() {
    let place = in_memory();
    let rest = place.path().join("..datakey-rest");
    fs::create_dir(&rest).unwrap();
    fs::write(rest.join("v1"), "key").unwrap();
    symlink("..datakey-rest", place.path().join(NEXT)).unwrap();
    assert_eq!(Folder::open(place.path()).unwrap().origin(), None);
    write(&place, &[1], READ).unwrap();
    assert_eq!(names(&place), ["..data", SET, ORIGIN, "current", "v1", "version"]);
}

#[test]
fn incomplete_set_is_none() {
    // In the set, and the links to it.
    for name in ["v1", "v2", "current", "version", ORIGIN] {
        for folder in [DATA, "."] {
            let place = in_memory();
            write(&place, &[1, 2], READ).unwrap();
            fs::remove_file(place.path().join(folder).join(name)).unwrap();
            assert_eq!(Folder::open(place.path()).unwrap().origin(), None, "{folder}/{name}");
            write(&place, &[1, 2], READ).unwrap();
            assert_eq!(Folder::open(place.path()).unwrap().origin(), Some(origin(&[1, 2])), "{folder}/{name}");
        }
    }
    let place = in_memory();
    write(&place, &[1], READ).unwrap();
    let mut outside = origin(&[1]);
    outside.versions.get_mut(&1).unwrap().name = "../../etc/hostname".to_owned();
    let file = place.path().join(DATA).join(ORIGIN);
    fs::remove_file(&file).unwrap();
    fs::write(&file, serde_json::to_vec(&outside).unwrap()).unwrap();
    assert_eq!(Folder::open(place.path()).unwrap().origin(), None);
}

#[test]
fn set_of_another_user_or_place_is_not_taken_over() {
    type Plant = fn(&Path);
    let plants: [Plant; 7] = [
        // The folder of the set is somewhere else, or others may write it.
        |place| {
            let set = place.join(DATA).canonicalize().unwrap();
            fs::rename(&set, place.join("..other")).unwrap();
            fs::remove_file(place.join(DATA)).unwrap();
            symlink("..other", place.join(DATA)).unwrap();
        },
        |place| fs::set_permissions(place.join(DATA), fs::Permissions::from_mode(0o722)).unwrap(),
        |place| {
            let set = place.join(DATA).canonicalize().unwrap();
            fs::rename(&set, place.join("real")).unwrap();
            symlink("real", &set).unwrap();
        },
        // A file is a link, or a pipe that would never end.
        |place| {
            fs::remove_file(place.join(DATA).join("v1")).unwrap();
            symlink("/etc/hostname", place.join(DATA).join("v1")).unwrap();
        },
        |place| {
            fs::remove_file(place.join(DATA).join("current")).unwrap();
            symlink("v1", place.join(DATA).join("current")).unwrap();
        },
        |place| {
            let file = place.join(DATA).join(ORIGIN);
            fs::remove_file(&file).unwrap();
            rustix::fs::mkfifoat(rustix::fs::CWD, &file, Mode::RUSR | Mode::WUSR).unwrap();
        },
        |place| {
            let file = place.join(DATA).join(ORIGIN);
            fs::remove_file(&file).unwrap();
            symlink("/dev/zero", &file).unwrap();
        },
    ];
    for (number, plant) in plants.into_iter().enumerate() {
        let place = in_memory();
        write(&place, &[1, 2], READ).unwrap();
        plant(place.path());
        assert_eq!(Folder::open(place.path()).unwrap().origin(), None, "{number}");
    }
    if geteuid().is_root() {
        let place = in_memory();
        write(&place, &[1], READ).unwrap();
        let set = place.path().join(DATA).canonicalize().unwrap();
        std::os::unix::fs::chown(&set, Some(65534), None).unwrap();
        assert_eq!(Folder::open(place.path()).unwrap().origin(), None);
    }
}

#[test]
fn folder_in_place_of_a_link_is_not_replaced() {
    for name in [DATA, NEXT, "v1"] {
        let place = in_memory();
        fs::create_dir(place.path().join(name)).unwrap();
        let failure = write(&place, &[1], READ).unwrap_err();
        assert!(failure.why.contains(&format!("{name} is there already")), "{failure:?}");
    }
}

#[test]
fn lock_of_another_process_is_not_waited_for_without_end() {
    let place = in_memory();
    let other = File::open(place.path()).unwrap();
    flock(&other, FlockOperation::LockShared).unwrap();
    let begun = Instant::now();
    let failure = write(&place, &[1], READ).unwrap_err();
    assert!(failure.why.contains("another process has locked"), "{failure:?}");
    assert!(begun.elapsed() >= LOCK.0);
}

#[test]
fn rest_that_cannot_be_removed_does_not_undo_the_set() {
    let place = in_memory();
    // Not even root removes it.
    fs::write(place.path().join("..datakey-rest"), "no folder").unwrap();
    write(&place, &[1], READ).unwrap();
    assert_eq!(Folder::open(place.path()).unwrap().origin(), Some(origin(&[1])));
    let rest = place.path().join("..datakey-killed");
    fs::create_dir(&rest).unwrap();
    Folder::open(place.path()).unwrap().remove_leftovers();
    assert!(!rest.exists() && place.path().join("v1").exists());
}

#[test]
fn set_that_cannot_be_written_leaves_the_one_before() {
    let place = in_memory();
    write(&place, &[1], READ).unwrap();
    // No file system holds a file of this name.
    let mut long = origin(&[2]);
    long.versions.get_mut(&2).unwrap().name = "n".repeat(300);
    let contents = BTreeMap::from([(2, Zeroizing::new(b"key 2".to_vec()))]);
    Folder::open(place.path()).unwrap().replace(&long, &contents, READ).unwrap_err();
    assert_eq!(read(&place, "current").as_deref(), Some("key 1"));
    assert_eq!(names(&place), ["..data", SET, ORIGIN, "current", "v1", "version"]);
}

#[test]
fn folder_must_be_there_and_in_memory() {
    for (path, part) in [
        ("/no/such/folder", "cannot open"),
        ("/dev/null", "no folder"),
        ("/proc/self/cwd", "no folder"),
        (env!("CARGO_MANIFEST_DIR"), "not in memory"),
    ] {
        let failure = Folder::open(Path::new(path)).unwrap_err();
        assert!(failure.why.contains(part), "{failure:?}");
    }
}
