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
    let text = render(&rows, &table, &head, format);
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
    let document: serde_json::Value = serde_json::from_str(&render(&rows, &table, &head, format)).expect("JSON");
    assert_eq!(document["schema"], "gradient.log/1");
    assert_eq!(document["commits"][0]["step"], 2);
    assert_eq!(document["commits"][0]["parents"][0], document["commits"][1]["id"]);
}
