use super::*;
use crate::cli::Cli;
use clap::Parser;

fn from_file(text: &str) -> Result<GuestSpec, toml::de::Error> {
    toml::from_str(text)
}

#[test]
fn a_spec_file_has_the_keys_of_the_command_line() {
    let spec = from_file(
        r#"
        name = "a"
        container = "/web/a"
        container-limit = "max=2G,low=512M"
        memory = "1G"
        may-charge = ["/tenants", "/web"]
        cpus = 4
        kernel = "vmlinux"
        disk = ["root.img,ro", "data.img"]
        console = "file=/tmp/console"
        balancer = "none"
        merge = true
        "#,
    )
    .unwrap();
    assert_eq!(spec.memory_bytes(), 1 << 30);
    assert_eq!(spec.disks.len(), 2);
    assert_eq!(spec.may_charge, ["/tenants".parse().unwrap(), "/web".parse().unwrap()]);
    assert_eq!(spec.disks[0], Disk { path: "root.img".into(), read_only: true, is_raw: false });
    assert_eq!(spec.balancer, Some(Balancer::None));
    assert!(spec.merge && GuestSpec::default().or(spec).merge);
}

#[test]
fn an_image_is_a_path_or_a_digest_in_the_store() {
    let spec = from_file("root = [\"./a.erofs\", \"sha256:0123abcd\", \"89abcdef00\"]").unwrap();
    let named: Vec<Option<&str>> = spec.root.iter().map(ImageName::in_store).collect();
    assert_eq!(named, [None, Some("sha256:0123abcd"), Some("89abcdef00")]);
    assert_eq!(spec.root[0], ImageName::Path("./a.erofs".into()));
    let flags = GuestSpec { root: vec![ImageName::Path("/b".into())], ..Default::default() };
    assert_eq!(flags.or(spec).root, [ImageName::Path("/b".into())]);
}

#[test]
fn flags_win_over_the_file() {
    let file = from_file("memory = \"1G\"\ncpus = 4").unwrap();
    let flags = GuestSpec { cpus: Some(2), ..Default::default() };
    let spec = flags.or(file);
    assert_eq!((spec.cpu_count(), spec.memory_bytes()), (2, 1 << 30));
}

#[test]
fn the_error_of_a_bad_spec_file_names_the_wrong_value() {
    for (text, word) in [
        ("memroy = \"1G\"", "memroy"),
        ("memory = \"1M\"", "16M"),
        ("memory = \"17M\"", "multiple"),
        ("memory = \"lots\"", "lots"),
        ("container-limit = \"0\"", "max_bytes"),
        ("container-limit = \"min=2G,max=1G\"", "min_bytes"),
        ("container = \"web\"", "web"),
        ("may-charge = [\"tenants\"]", "tenants"),
        ("name = \"a b\"", "letters"),
        ("name = \"..\"", "letters"),
        ("console = \"tty\"", "tty"),
        ("disk = [\"a,rx\"]", "rx"),
        ("root = [\"debian\"]", "path has a /"),
        ("root = [\"sha256:abc\"]", "first 8"),
        ("root = [\"sha512:abcdef0123\"]", "digest"),
        ("root = [\"ABCDEF0123\"]", "digest"),
    ] {
        let error = from_file(text).expect_err(text).to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn a_wait_has_a_time_or_is_for_ever() {
    let cli = |arguments: &[&str]| {
        let all = ["vmm", "--kernel", "k"].iter().chain(arguments);
        Cli::try_parse_from(all).map(|cli| cli.guest.wait).map_err(|error| error.to_string())
    };
    assert_eq!(cli(&[]), Ok(None));
    assert_eq!(cli(&["--wait"]), Ok(Some(Wait::Forever)));
    assert_eq!(cli(&["--wait=90"]), Ok(Some(Wait::For(std::time::Duration::from_secs(90)))));
    assert!(cli(&["--wait=-1"]).is_err() && cli(&["--wait=soon"]).is_err() && cli(&["--wait", "9"]).is_err());
    let file: GuestSpec = toml::from_str("wait = \"forever\"").unwrap();
    assert_eq!(file.wait, Some(Wait::Forever));
}
