use super::*;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::symlink;
use tempfile::TempDir;

fn far_future() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1 << 40)
}

fn long_ago() -> SystemTime {
    UNIX_EPOCH
}

/// A directory with one file, which was read.
fn of_one() -> (TempDir, PathBuf, Files) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "one").unwrap();
    let mut files = Files::new(MarkKey::random());
    files.read(&path, 100).unwrap();
    (directory, path, files)
}

fn changed(files: &mut Files) -> bool {
    files.have_changed(far_future())
}

#[test]
fn what_is_left_alone_or_written_again_is_no_change() {
    let (directory, path, mut files) = of_one();
    assert!(!changed(&mut files));
    fs::write(directory.path().join("copy"), "one").unwrap();
    fs::rename(directory.path().join("copy"), &path).unwrap();
    assert!(!changed(&mut files));
    assert!(files.are_of_one_piece());
}

#[test]
fn each_way_to_replace_a_file_is_seen() {
    let (directory, path, mut files) = of_one();
    let other = directory.path().join("other");
    fs::write(&other, "two").unwrap();
    fs::rename(&other, &path).unwrap();
    assert!(changed(&mut files), "renamed over");

    let (_directory, path, mut files) = of_one();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(0).unwrap();
    assert!(changed(&mut files), "cut to nothing");
    file.rewind().unwrap();
    file.write_all(b"two").unwrap();
    assert!(changed(&mut files), "written in place");

    let (_directory, path, mut files) = of_one();
    fs::remove_file(&path).unwrap();
    assert!(changed(&mut files), "removed");
}

#[test]
fn a_swapped_link_on_the_way_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (folder, content) in [("v1", "one"), ("v2", "two")] {
        fs::create_dir(at(folder)).unwrap();
        fs::write(at(folder).join("file"), content).unwrap();
    }
    symlink("v1", at("..data")).unwrap();
    symlink("..data/file", at("file")).unwrap();
    let mut files = Files::new(MarkKey::random());
    files.read(&at("file"), 100).unwrap();
    assert!(!changed(&mut files));
    symlink("v2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    assert!(!files.are_of_one_piece());
    assert!(changed(&mut files));
}

#[test]
fn a_change_without_a_trace_is_seen_while_the_file_is_fresh() {
    let (_directory, path, mut files) = of_one();
    assert!(!files.have_changed(long_ago()));
    fs::write(&path, "two").unwrap();
    // As if the clock's grain had hidden it.
    files.seen.get_mut(&path).unwrap().stamp = Stamp::at(&path);
    assert!(files.have_changed(long_ago()));
}

#[test]
fn what_can_not_be_used_is_not_a_change_at_each_look() {
    let (_directory, path, _) = of_one();
    let unusable = |limit| {
        let mut files = Files::new(MarkKey::random());
        assert!(files.read(&path, limit).is_err());
        assert!(!changed(&mut files), "as before");
        files
    };
    unusable(2);
    fs::write(&path, [0xff]).unwrap();
    unusable(100);
    fs::remove_file(&path).unwrap();
    let mut missing = unusable(100);
    fs::write(&path, "one").unwrap();
    assert!(changed(&mut missing), "now it is there");
}

#[test]
fn a_file_that_differs_between_two_readings_is_not_of_one_piece() {
    let (_directory, path, mut files) = of_one();
    assert!(files.are_of_one_piece());
    fs::write(&path, "two").unwrap();
    files.read(&path, 100).unwrap();
    assert!(!files.are_of_one_piece());
    assert!(changed(&mut files), "it has to be read again");
}

#[test]
fn a_change_is_told_once() {
    let (_directory, path, mut files) = of_one();
    fs::write(&path, "first half").unwrap();
    assert!(changed(&mut files));
    assert!(!changed(&mut files));
    fs::write(&path, "first half, and the second").unwrap();
    assert!(changed(&mut files));
}

#[test]
fn files_that_a_later_reading_did_not_come_to_are_watched_on() {
    let (directory, path, mut files) = of_one();
    let mut later = Files::new(files.key.clone());
    let other = directory.path().join("other");
    assert!(later.read(&other, 100).is_err());
    files.update(later);
    assert!(!changed(&mut files));
    fs::write(&path, "two").unwrap();
    assert!(changed(&mut files));
    fs::write(&other, "two").unwrap();
    assert!(changed(&mut files));
}

#[test]
fn a_file_is_not_read_beyond_what_is_of_use() {
    let (_directory, path, mut files) = of_one();
    let large = File::create(&path).unwrap();
    large.set_len(1 << 20).unwrap();
    let wrong = files.read(&path, 100).unwrap_err();
    assert!(wrong.contains("larger than 100 bytes"), "{wrong}");
    assert_eq!(files.seen[&path].mark, None, "it was read all the same");
    let mut files = Files::new(MarkKey::random());
    assert!(files.read(&path, 100).is_err());
    assert!(!changed(&mut files));
    assert_eq!(files.seen[&path].mark, None, "it was read all the same, to see whether it changed");
}

#[test]
fn a_file_that_is_too_large_for_one_purpose_only_is_of_one_piece() {
    for limits in [[2, 100], [100, 2]] {
        let (_directory, path, _) = of_one();
        let mut files = Files::new(MarkKey::random());
        for limit in limits {
            assert_eq!(files.read(&path, limit).is_ok(), limit == 100);
        }
        assert!(files.are_of_one_piece());
        assert!(!changed(&mut files));
        fs::write(&path, "two").unwrap();
        assert!(changed(&mut files), "{limits:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_whose_size_is_not_known_ahead_is_read_and_is_of_one_piece() {
    let path = Path::new("/proc/version");
    assert_eq!(fs::metadata(path).unwrap().len(), 0);
    let mut files = Files::new(MarkKey::random());
    let (text, _) = files.read(path, 10_000).unwrap();
    assert!(!text.is_empty() && files.are_of_one_piece());
    assert!(!changed(&mut files));
    let wrong = Files::new(MarkKey::random()).read(path, 10).unwrap_err();
    assert!(wrong.contains("larger than 10 bytes"), "{wrong}");
}
