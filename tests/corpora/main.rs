//! The checks of `fuzz/`, on its corpora and on texts that are nearly right, without a fuzzer.

#[path = "../../fuzz/checks/lib.rs"]
pub mod checks;
mod nearly_right;

use std::{fs, panic::catch_unwind, path::Path};

#[test]
fn no_input_that_was_ever_hostile_is_so_again() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut failed = Vec::new();
    for (name, check) in checks::CHECKS {
        let folder = corpora.join(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut checked = 0;
        for file in files {
            let path = file.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            if catch_unwind(|| check(&bytes)).is_err() {
                failed.push(path);
            }
            checked += 1;
        }
        assert!(checked > 0, "no files in {}", folder.display());
    }
    assert_eq!(fs::read_dir(&corpora).unwrap().count(), checks::CHECKS.len(), "a corpus without a check");
    assert!(failed.is_empty(), "{failed:#?}");
}
