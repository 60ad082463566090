//! Settings of the real binary: the precedence of file, environment and flags, what is refused and how, and
//! what `ringway check` says.

mod support;

use serde_json::json;
use support::{Client, Server, run_in, run_with};

fn folder_with(settings: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ringway.toml"), settings).unwrap();
    folder
}

#[test]
fn check_prints_each_value_and_where_it_came_from() {
    let folder = folder_with("[limits]\nmax_inflight = 100\nsend_burst = 200\nsend_per_s = 20\n");
    let checked = run_with(
        folder.path(),
        &["check", "--limits.send_per_s", "40"],
        &[("RINGWAY__LIMITS__SEND_BURST", "300"), ("RINGWAY__LIMITS__SEND_PER_S", "30")],
    );
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let line = |start: &str| {
        let found = checked.stdout.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("{start}: {}", checked.stdout)).to_owned()
    };
    assert!(line("max_inflight = 100 ").ends_with("# ringway.toml:2"));
    assert!(line("send_burst = 300 ").ends_with("# environment RINGWAY__LIMITS__SEND_BURST"));
    assert!(line("send_per_s = 40 ").ends_with("# flag --limits.send_per_s"));
    assert!(line("wss = \"127.0.0.1:8443\" ").ends_with("# default"));
    assert!(line("# certificate is not set ").ends_with("# default"));
}

#[test]
fn a_list_is_taken_as_check_prints_it() {
    let folder = tempfile::tempdir().unwrap();
    let shown = |words: &[&str], variables: &[(&str, &str)]| {
        let checked = run_with(folder.path(), words, variables);
        let line = checked.stdout.lines().find(|line| line.starts_with("allowed_origins = "));
        line.and_then(|line| line.split(" #").next()).unwrap_or_default().trim_end().to_owned()
    };
    let commas = shown(&["check", "--gateway.allowed_origins", "https://a.example,https://b.example"], &[]);
    let (_, list) = commas.split_once(" = ").expect("it is shown");
    assert_eq!(list, r#"["https://a.example", "https://b.example"]"#);
    assert_eq!(shown(&["check", "--gateway.allowed_origins", list], &[]), commas);
    assert_eq!(shown(&["check"], &[("RINGWAY__GATEWAY__ALLOWED_ORIGINS", list)]), commas);
    let broken = run_in(folder.path(), &["check", "--gateway.allowed_origins", "[https://a.example]"]);
    assert_eq!(broken.code, Some(2), "{broken:?}");
}

#[test]
fn another_file_is_read_when_named() {
    let folder = folder_with("[limits]\nmax_inflight = 100\n");
    std::fs::write(folder.path().join("other.toml"), "[limits]\nmax_inflight = 7\n").unwrap();
    let checked = run_in(folder.path(), &["check", "--config", "other.toml"]);
    assert!(checked.stdout.contains("max_inflight = 7 "), "{checked:?}");
    let missing = run_in(folder.path(), &["check", "--config", "missing.toml"]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("missing.toml: cannot be read"), "{missing:?}");
}

#[test]
fn unknown_names_are_refused_with_a_suggestion_in_all_three_sources() {
    let folder = folder_with("[limits]\nmax_inflihgt = 1\n");
    let refused = run_with(folder.path(), &["check"], &[("RINGWAY__DIAGNOSTICS__ECO", "true")]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("ringway.toml:2: there is no setting limits.max_inflihgt"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("did you mean limits.max_inflight?"), "{refused:?}");
    assert!(refused.stderr.contains("environment RINGWAY__DIAGNOSTICS__ECO"), "{refused:?}");
    assert!(refused.stderr.contains("did you mean diagnostics.echo?"), "{refused:?}");

    let folder = tempfile::tempdir().unwrap();
    for words in [&["serve", "--lisen.wss", "off"][..], &["check", "--limits.max_inflght", "1"]] {
        let refused = run_in(folder.path(), words);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("similar argument"), "{refused:?}");
    }
    assert!(!folder.path().join("ringway-data").exists(), "nothing is made before the settings are right");
}

#[test]
fn a_value_of_the_wrong_kind_says_source_key_and_what_was_expected() {
    let folder = folder_with("[listen]\nws = 8080\n");
    let refused =
        run_with(folder.path(), &["serve", "--log.level", "loud"], &[("RINGWAY__TLS__ALLOW_TLS12", "yes")]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for part in [
        "ringway.toml:2: listen.ws expects an address and a port",
        "environment RINGWAY__TLS__ALLOW_TLS12: tls.allow_tls12 expects true or false",
        "flag --log.level: log.level expects",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
}

#[test]
fn rules_between_settings_are_checked_before_anything_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, part) in [
        (&["--listen.wss", "off", "--listen.ws", "off"][..], "a server needs one of them"),
        (&["--tls.certificate", "c.pem"], "needs tls.key"),
        (&["--auth.issuer", "https://id.example"], "set auth.jwks_file or auth.jwks_url"),
        (&["--auth.jwks_url", "http://id.example/keys"], "must be an https:// URL"),
        (&["--limits.max_queue_bytes", "1000"], "must hold two pages"),
        (&["--limits.dedup_window_s", "59"], "limits.dedup_window_s must be 60 to 31622400"),
        (&["--gateway.allowed_origins", "chat.example"], "takes origins as browsers send them"),
    ] {
        let refused = run_in(folder.path(), &[&["check"], flags].concat());
        assert_eq!(refused.code, Some(2), "{flags:?}: {refused:?}");
        assert!(refused.stderr.contains(part), "{flags:?}: {refused:?}");
    }
}

#[test]
fn check_fails_for_what_serve_would_refuse() {
    let folder = tempfile::tempdir().unwrap();
    let refused = run_in(folder.path(), &["check", "--listen.ws", "0.0.0.0:8080"]);
    assert_eq!(refused.code, Some(6), "{refused:?}");
    assert!(refused.stderr.contains("a development key serves loopback only"), "{refused:?}");
    std::fs::write(folder.path().join("bad"), "neither PEM nor JSON").unwrap();
    for flags in [&["--tls.certificate", "bad", "--tls.key", "bad"][..], &["--auth.jwks_file", "bad"]] {
        let refused = run_in(folder.path(), &[&["check"], flags].concat());
        assert_eq!(refused.code, Some(7), "{flags:?}: {refused:?}");
    }
    assert!(!folder.path().join("ringway-data").exists(), "check makes nothing");
}

#[test]
fn help_lists_every_setting_with_its_default_and_the_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let help = run_in(folder.path(), &["serve", "--help"]);
    assert_eq!(help.code, Some(0));
    let checked = run_in(folder.path(), &["check"]);
    let mut section = String::new();
    // The last line is no setting: what will carry the sockets.
    let settings = checked.stdout.lines().take_while(|line| !line.starts_with("# kernel: "));
    for line in settings {
        if let Some(name) = line.strip_prefix('[') {
            section = name.split(']').next().unwrap().to_owned();
        } else if let Some(key) =
            line.trim_start_matches("# ").split([' ', '=']).next().filter(|key| !key.is_empty())
        {
            assert!(help.stdout.contains(&format!("--{section}.{key} ")), "{section}.{key}");
        }
    }
    assert!(help.stdout.contains("Exit codes:"), "{}", help.stdout);
    assert!(help.stdout.contains("RINGWAY__SECTION__KEY"), "{}", help.stdout);
}

#[test]
fn the_window_of_idempotency_is_told_in_welcome() {
    let server = Server::start(&["--limits.dedup_window_s", "3600"]);
    let welcome = Client::open(server.ws()).hello(&server.token("alice"));
    assert_eq!(welcome["limits"]["dedup_window_s"], json!(3600), "{welcome}");
}
