use super::*;
use proptest::prelude::*;
use protocol::limits::{Limits, LimitsPatch};

fn path(text: &str) -> ContainerPath {
    text.parse().unwrap()
}

/// What a request does: places limits, or fails with the first bound that is broken.
fn put(tree: &mut Tree, path: &ContainerPath, limits: Limits) -> Result<Put, TreeError> {
    let done = tree.place(path, limits)?;
    tree.broken(path).into_iter().next().map_or(Ok(done), Err)
}

/// The same with a change of limits.
fn patch(mut tree: Tree, path: &ContainerPath, patch: &LimitsPatch) -> Result<(), TreeError> {
    tree.alter(path, patch)?;
    tree.broken(path).into_iter().next().map_or(Ok(()), Err)
}

fn max(bytes: u64) -> Limits {
    Limits { max_bytes: Some(bytes), ..Default::default() }
}

#[test]
fn a_put_makes_parents_that_go_when_they_are_empty() {
    let mut tree = Tree::default();
    assert_eq!(put(&mut tree, &path("/web/a"), max(1 << 30)), Ok(Put::Created));
    assert!(tree.get(&path("/web")).unwrap().transient);
    assert!(!tree.get(&path("/web/a")).unwrap().transient);
    assert_eq!(put(&mut tree, &path("/web/a"), max(2 << 30)), Ok(Put::Replaced));
    tree.remove(&path("/web/a"), 0).unwrap();
    assert_eq!(tree.sweep(&path("/web"), |_| false), [path("/web")]);
    assert_eq!(tree, Tree { owner_next: 4, ..Tree::default() });
}

#[test]
fn a_transient_container_stays_while_anything_is_inside() {
    let mut tree = Tree::default();
    tree.ensure(&path("/a/b/c")).unwrap();
    tree.ensure(&path("/a/d")).unwrap();
    assert!(tree.sweep(&path("/a/d"), |p| *p == path("/a/d")).is_empty());
    assert_eq!(tree.sweep(&path("/a/b/c"), |_| false), [path("/a/b/c"), path("/a/b")]);
    assert!(tree.get(&path("/a")).is_some());
}

#[test]
fn a_child_may_have_a_larger_max_but_not_a_larger_promise() {
    let mut tree = Tree::default();
    put(&mut tree, &path("/web"), max(100)).unwrap();
    put(&mut tree, &path("/web/a"), max(200)).unwrap();
    let min = |bytes| LimitsPatch { min_bytes: Some(bytes), ..Default::default() };
    patch(tree.clone(), &path("/web/a"), &min(100)).unwrap();
    let error = patch(tree.clone(), &path("/web/a"), &min(101)).unwrap_err().to_string();
    assert!(
        error.contains("min_bytes is 101") && error.contains("at most 100") && error.contains("/web"),
        "{error}"
    );
    put(&mut tree, &path("/web/b"), Limits { min_bytes: 60, ..Default::default() }).unwrap();
    let error = patch(tree.clone(), &path("/web/a"), &min(50)).unwrap_err().to_string();
    assert!(error.contains("at most 40"), "{error}");
    let lower = LimitsPatch { max_bytes: Some(Some(59)), ..Default::default() };
    let error = patch(tree.clone(), &path("/web"), &lower).unwrap_err().to_string();
    assert!(error.contains("max_bytes is 59") && error.contains("at least 60"), "{error}");
}

#[test]
fn only_empty_containers_are_removed() {
    let mut tree = Tree::default();
    put(&mut tree, &path("/web/a"), Limits::default()).unwrap();
    assert!(matches!(tree.remove(&path("/web/a"), 1), Err(TreeError::Busy { .. })));
    assert!(matches!(tree.remove(&path("/web"), 0), Err(TreeError::Busy { .. })));
    assert!(matches!(tree.remove(&path("/nope"), 0), Err(TreeError::Missing(_))));
    assert_eq!(tree.remove(&path("/"), 0), Err(TreeError::Root));
}

#[test]
fn an_owner_id_is_not_given_again_at_once() {
    let mut tree = Tree::default();
    put(&mut tree, &path("/a"), Limits::default()).unwrap();
    let first = tree.get(&path("/a")).unwrap().owner;
    tree.remove(&path("/a"), 0).unwrap();
    put(&mut tree, &path("/b"), Limits::default()).unwrap();
    assert_ne!(tree.get(&path("/b")).unwrap().owner, first);
}

proptest! {
    /// Whatever is asked for: parents exist, owners are unique, an id lasts as long as its container.
    #[test]
    fn the_tree_holds_together(steps in prop::collection::vec(("(/[ab]){1,4}", 0u8..4), 1..40)) {
        let mut tree = Tree::default();
        for (text, step) in steps {
            let path = path(&text);
            let before = tree.clone();
            let mut next = tree.clone();
            match step {
                0 => { put(&mut next, &path, Limits::default()).ok(); }
                1 => { next.ensure(&path).ok(); }
                2 => { next.remove(&path, 0).ok(); }
                _ => { next.sweep(&path, |_| false); }
            }
            tree = next;
            let mut owners = std::collections::BTreeSet::new();
            for (path, node) in tree.iter() {
                prop_assert!(path.parent().is_none_or(|parent| tree.get(&parent).is_some()));
                prop_assert!(node.owner >= OWNER_ROOT && owners.insert(node.owner));
                if let Some(old) = before.get(path) { prop_assert_eq!(old.owner, node.owner); }
            }
        }
    }
}

#[test]
fn a_trust_domain_is_inherited_and_by_default_a_containers_own_in_the_root() {
    let mut tree = Tree::default();
    let path = |text: &str| text.parse::<ContainerPath>().unwrap();
    let limits = |domain: &str| Limits { domain: Some(domain.parse().unwrap()), ..Default::default() };
    put(&mut tree, &path("/web/a"), limits("shared")).unwrap();
    put(&mut tree, &path("/db"), limits("shared")).unwrap();
    for (container, domain) in [
        ("/web", "web"),
        ("/web/a/deep/er", "shared"),
        ("/web/b", "web"),
        ("/db", "shared"),
        ("/not/there", "not"),
        ("/", "=host"),
    ] {
        assert_eq!(tree.domain(&path(container)).as_str(), domain, "{container}");
    }
    put(&mut tree, &ContainerPath::root(), limits("all")).unwrap();
    assert_eq!(
        (tree.domain(&path("/web/b")).as_str(), tree.domain(&path("/db")).as_str()),
        ("all", "shared")
    );
}
