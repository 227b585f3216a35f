//! Folders that are lost are named, and not made anew over the loss.

mod support;

use std::sync::Arc;

use gradient_repo::{Progress, Repository, repair};
use gradient_storage::Storage;

#[test]
fn a_repair_makes_no_empty_folder_where_one_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("repo");
    std::fs::create_dir(&path).expect("a folder");
    let open = || Arc::new(gradient_storage::LocalStorage::open(&path).expect("opened")) as Arc<dyn Storage>;
    let repo = Repository::init(open(), "gpt", "").expect("a new repository").0;
    support::Line::new(&repo, "main").commit(1, 1);
    drop(repo);
    for lost in ["packs", "ops"] {
        std::fs::rename(path.join(lost), path.join("elsewhere")).expect("moved");
        let error = repair(&open(), true, &Progress::new()).expect_err("it has to come from a copy");
        assert!(error.hint().is_some_and(|hint| hint.contains(&format!("put the folder {lost} back"))), "{error}");
        assert!(!path.join(lost).exists(), "{lost}");
        std::fs::rename(path.join("elsewhere"), path.join(lost)).expect("put back");
    }
    assert!(repair(&open(), true, &Progress::new()).expect("whole").left.is_empty());
}
