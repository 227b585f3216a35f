//! Resolving refs and walking history.

mod support;

use gradient_repo::{ErrorClass, LogFormat, LogQuery, LogStyle, RepoError, render};
use support::{Line, new};

#[test]
fn a_step_that_left_the_line_still_resolves_with_a_notice() {
    let (_, repo) = new();
    let mut line = Line::new(&repo, "main");
    line.commit(1, 1);
    let five = line.commit(5, 5).commit;
    repo.undo().expect("undone");
    let resolved = repo.resolve("main@5", None).expect("kept");
    assert_eq!(resolved.commit, five);
    assert_eq!(resolved.notices.len(), 1);
}

#[test]
fn what_does_not_exist_names_the_nearest() {
    let (_, repo) = new();
    let mut line = Line::new(&repo, "main");
    line.commit(10, 1);
    line.commit(100, 2);
    for (given, nearest) in [("main@101", "main@100"), ("mian", "main"), ("mian@10", "main@10"), ("latets", "latest")] {
        let error = repo.resolve(given, None).expect_err("not there");
        let RepoError::RefNotFound { nearest: found, .. } = &error else { unreachable!("{given}: {error}") };
        assert_eq!(found[0], nearest, "{given}");
    }
    let error = repo.resolve("latest", Some("exp")).expect_err("no commits there");
    assert!(matches!(error, RepoError::EmptyBranch { .. }));
    assert_eq!(error.class(), ErrorClass::NotFound);
}

#[test]
fn an_id_prefix_resolves_when_it_is_unique() {
    let (_, repo) = new();
    let one = Line::new(&repo, "main").commit(1, 1).commit;
    let hex = one.to_hex();
    assert_eq!(repo.resolve(&hex[..6], None).expect("found").commit, one);
    assert_eq!(repo.resolve(&hex.to_uppercase(), None).expect("found").commit, one);
    assert!(repo.resolve(&hex[..3], None).is_err(), "three digits are too few");
}

#[test]
fn history_has_children_before_parents_and_leaves_out_what_is_excluded() {
    let (_, repo) = new();
    let mut main = Line::new(&repo, "main");
    let ids: Vec<_> = (1..=4).map(|step| main.commit(step, step as u8).commit).collect();
    let mut exp = Line::from(&repo, "exp", ids[1]);
    let side: Vec<_> = (3..=5).map(|step| exp.commit(step, 100 + step as u8).commit).collect();
    let all = LogQuery { start: vec![ids[3], side[2]], ..Default::default() };
    let rows = repo.history(&all).expect("history");
    assert_eq!(rows.len(), 7);
    for (at, row) in rows.iter().enumerate() {
        for parent in &row.commit.parents {
            assert!(rows.iter().position(|other| other.id == *parent).expect("listed") > at);
        }
    }
    let only = LogQuery { start: vec![side[2]], exclude: vec![ids[3]], ..Default::default() };
    let rows: Vec<_> = repo.history(&only).expect("history").into_iter().map(|row| row.id).collect();
    assert_eq!(rows, [side[2], side[1], side[0]]);
    let two = LogQuery { start: vec![ids[3]], limit: Some(2), ..Default::default() };
    assert_eq!(repo.history(&two).expect("history").len(), 2);
}

#[test]
fn the_graph_joins_the_lanes_of_a_fork() {
    let (_, repo) = new();
    let mut main = Line::new(&repo, "main");
    let one = main.commit(1, 1).commit;
    main.commit(2, 2);
    let mut exp = Line::from(&repo, "exp", one);
    exp.commit(3, 3);
    let (table, head) = repo.refs().expect("refs");
    let start = table.values().map(|target| target.commit()).collect();
    let rows = repo.history(&LogQuery { start, ..Default::default() }).expect("history");
    let format = LogFormat { style: LogStyle::Oneline, graph: true, color: false, now_ns: None, width: None };
    let text = render(&rows, &repo.branches_of(&rows, &table).expect("walked"), &[], &table, &head, format);
    let shape: Vec<String> =
        text.lines().map(|line| line.chars().take_while(|c| "|*/ ".contains(*c)).collect::<String>()).collect();
    assert_eq!(shape, ["* ", "| * ", "|/", "* "], "{text}");
    assert!(text.contains("(HEAD -> main)") && text.contains("(exp)"), "{text}");
}

#[test]
fn the_json_log_is_one_document_with_every_commit() {
    let (_, repo) = new();
    let mut main = Line::new(&repo, "main");
    main.commit(1, 1);
    main.commit(2, 2);
    let (table, head) = repo.refs().expect("refs");
    let start = table.values().map(|target| target.commit()).collect();
    let rows = repo.history(&LogQuery { start, ..Default::default() }).expect("history");
    let format = LogFormat { style: LogStyle::Json, graph: false, color: false, now_ns: None, width: None };
    let document: serde_json::Value = serde_json::from_str(&render(
        &rows,
        &repo.branches_of(&rows, &table).expect("walked"),
        &[],
        &table,
        &head,
        format,
    ))
    .expect("JSON");
    assert_eq!(document["schema"], "gradient.log/1");
    assert_eq!(document["commits"][0]["step"], 2);
    assert_eq!(document["commits"][0]["parents"][0], document["commits"][1]["id"]);
}

#[test]
fn a_name_that_the_log_shows_leads_to_the_commit_beside_it() {
    let (_, repo) = new();
    let mut old = Line::new(&repo, "main");
    for step in [10, 20, 30] {
        old.commit(step, 1);
    }
    let mut anew = Line::new(&repo, "main");
    for step in [10, 20] {
        anew.commit(step, 2);
    }
    let mut exp = Line::from(&repo, "exp", anew.base.expect("a commit"));
    exp.commit(40, 3);
    Line::from(&repo, "gone", exp.base.expect("a commit")).commit(50, 4);
    let gone = repo.resolve("gone", None).expect("the branch").commit;
    repo.create_tag("kept", gone).expect("a tag");
    repo.delete_branch("gone", "").expect("deleted");
    let (table, head) = repo.refs().expect("refs");
    assert!(table.contains_key("main.1"), "the second line displaced the first one");
    let start: Vec<_> = table.values().map(|target| target.commit()).collect();
    for limit in [None, Some(3)] {
        let rows = repo.history(&LogQuery { start: start.clone(), limit, ..Default::default() }).expect("history");
        let branches = repo.branches_of(&rows, &table).expect("walked");
        for (row, branch) in rows.iter().zip(&branches) {
            if row.id == gone {
                assert_eq!(*branch, None, "its branch was deleted");
                continue;
            }
            let name = format!("{}@{}", branch.as_deref().expect("a name"), row.commit.step);
            assert_eq!(repo.resolve(&name, None).expect("resolves").commit, row.id, "{name}");
        }
        let format = LogFormat { style: LogStyle::Oneline, graph: false, color: false, now_ns: None, width: None };
        let text = render(&rows, &branches, &[], &table, &head, format);
        assert!(limit.is_some() || text.contains(" main.1@30"), "{text}");
        assert!(text.contains(" @50  (tag: kept)"), "{text}");
    }
}
