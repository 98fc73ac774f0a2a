//! The lints of `clippy-fragment.toml` catch the wrong way (requirement R2.4). Each raw call here
//! is expected to be refused: clippy says so where it is not.

use std::collections::BTreeSet;

/// The paths of one list of a clippy.toml.
fn paths(text: &str, list: &str) -> BTreeSet<String> {
    let start = text.find(&format!("{list} = [")).expect("the list");
    let lines = text[start..].lines().skip(1).take_while(|line| !line.starts_with(']'));
    lines.filter_map(|line| line.split('"').nth(1).map(str::to_owned)).collect()
}

/// Each raw call once, refused. The calls are never made.
macro_rules! refused {
    ($($path:literal => $call:expr;)*) => {
        const REFUSED: &[&str] = &[$($path),*];

        #[expect(dead_code, reason = "nothing here is called, clippy alone reads it")]
        fn raw_calls() {
            $({
                #[expect(clippy::disallowed_methods, reason = "it is refused")]
                fn raw() { $call }
                raw();
            })*
        }
    };
}

fn any<T>() -> T {
    panic!("nobody calls the raw calls")
}

refused! {
    "tokio::spawn" => drop(tokio::spawn(async {}));
    "tokio::task::spawn_blocking" => drop(tokio::task::spawn_blocking(|| ()));
    "tokio::task::spawn_local" => drop(tokio::task::spawn_local(async {}));
    "tokio::runtime::Runtime::spawn" => drop(any::<tokio::runtime::Runtime>().spawn(async {}));
    "tokio::runtime::Runtime::spawn_blocking" => drop(any::<tokio::runtime::Runtime>().spawn_blocking(|| ()));
    "tokio::runtime::Handle::spawn" => drop(any::<tokio::runtime::Handle>().spawn(async {}));
    "tokio::runtime::Handle::spawn_blocking" => drop(any::<tokio::runtime::Handle>().spawn_blocking(|| ()));
    "tokio::task::JoinSet::spawn" => drop(any::<tokio::task::JoinSet<()>>().spawn(async {}));
    "tokio::task::JoinSet::spawn_on" => drop(any::<tokio::task::JoinSet<()>>().spawn_on(async {}, &any()));
    "tokio::task::JoinSet::spawn_local" => drop(any::<tokio::task::JoinSet<()>>().spawn_local(async {}));
    "tokio::task::JoinSet::spawn_blocking" => drop(any::<tokio::task::JoinSet<()>>().spawn_blocking(|| ()));
    "tokio::task::LocalSet::spawn_local" => drop(any::<tokio::task::LocalSet>().spawn_local(async {}));
    "std::thread::spawn" => drop(std::thread::spawn(|| ()));
    "std::thread::Builder::spawn" => drop(any::<std::thread::Builder>().spawn(|| ()));
    "std::thread::Builder::spawn_scoped" => drop(any::<std::thread::Builder>().spawn_scoped(any::<&std::thread::Scope<'_, '_>>(), || ()));
    "std::thread::scope" => std::thread::scope(|_| ());
    "std::thread::Scope::spawn" => drop(any::<&std::thread::Scope<'_, '_>>().spawn(|| ()));
}

/// Those of a crate that is there with a feature.
#[cfg(feature = "rayon")]
mod parallel {
    use super::any;

    refused! {
        "rayon::spawn" => rayon::spawn(|| ());
        "rayon::join" => { rayon::join(|| (), || ()); };
        "rayon::scope" => rayon::scope(|_| ());
        "rayon::Scope::spawn" => any::<&rayon::Scope<'_>>().spawn(|_| ());
        "rayon::ThreadPool::spawn" => any::<rayon::ThreadPool>().spawn(|| ());
        "rayon::ThreadPool::install" => any::<rayon::ThreadPool>().install(|| ());
    }

    #[test]
    fn every_ban_on_rayon_is_tried() {
        let banned = super::paths(super::FRAGMENT, "disallowed-methods");
        let rayon = banned.iter().filter(|path| path.starts_with("rayon::")).map(String::as_str);
        assert_eq!(rayon.collect::<Vec<_>>(), {
            let mut refused = REFUSED.to_vec();
            refused.sort_unstable();
            refused
        });
    }
}

const FRAGMENT: &str = include_str!("../../clippy-fragment.toml");

#[test]
fn every_ban_is_tried() {
    let banned = paths(FRAGMENT, "disallowed-methods");
    let others = banned.iter().filter(|path| !path.starts_with("rayon::")).map(String::as_str);
    let refused: BTreeSet<&str> = REFUSED.iter().copied().collect();
    assert_eq!(others.collect::<BTreeSet<_>>(), refused);
}

#[test]
fn this_crate_is_held_to_what_it_ships_and_to_the_workspace() {
    let ours = include_str!("../../clippy.toml");
    let workspace = include_str!("../../../../clippy.toml");
    for list in ["disallowed-methods", "await-holding-invalid-types"] {
        let held = paths(ours, list);
        for text in [FRAGMENT, workspace] {
            assert!(
                paths(text, list).is_subset(&held),
                "{list} in crates/sdk/clippy.toml lacks some"
            );
        }
    }
}
