//! `cargo run -p throughline-sdk-surface [-- write]`: holds the surface of the SDK, every public item
//! with all features and those of our other crates that it shows, against `crates/sdk/surface.txt`. An item that is gone or changed breaks somebody's agent, and
//! needs a new version; one that came has to be written down, so that it is promised on purpose.
//!
//! `write` writes the file anew, but nothing away that the version still promises. `write compatible` does so too:
//! for lines that changed without breaking anybody, of which `bench/sdk-semver.sh` is the judge.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;

/// The form of rustdoc's JSON that `public-api` reads, which is that of one or two versions of Rust.
const FORMAT: u64 = 57;

/// Lines of a difference that are shown.
const MAX_SHOWN: usize = 40;

/// The package of the SDK.
const SDK: &str = "throughline";

/// Those that are modules of it.
const SHOWN_WHOLE: [&str; 2] = ["throughline-llm", "throughline-resilience"];

/// The one of which it shows some items, and how their paths begin.
const NOUNS: &str = "throughline-trace";
const NOUNS_PATH: &str = "throughline_trace::";

/// What the file begins with.
const HEAD: &str = "\
# What the SDK promises: its public items with all features. bench/surface compares and writes it.
";

/// Traits that nobody asks for by name: what they say of a type follows from its fields.
const UNASKED: [&str; 6] =
    ["Freeze", "RefUnwindSafe", "UnwindSafe", "UnsafeUnpin", "Unpin", "StructuralPartialEq"];

#[expect(clippy::print_stdout, reason = "it is a program for the terminal")]
fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let how = match arguments[..] {
        [] => How::Compare,
        ["write"] => How::Write,
        ["write", "compatible"] => How::WriteCompatible,
        _ => anyhow::bail!("expected nothing, `write` or `write compatible`, got {arguments:?}"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("a workspace")?;
    let Told::Items(items) = items(root)? else {
        eprintln!(
            "THE SURFACE OF THE SDK IS NOT GUARDED: expected rustdoc's JSON in form {FORMAT}, got another one from this \
             version of Rust; set `public-api` in Cargo.toml to the version that reads it"
        );
        return Ok(ExitCode::SUCCESS);
    };
    let file = root.join("crates/sdk/surface.txt");
    let now = Surface { version: env!("CARGO_PKG_VERSION").to_owned(), items };
    let promised = match std::fs::read_to_string(&file) {
        Ok(text) => Surface::from_text(&text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && how != How::Compare => {
            Surface { version: now.version.clone(), items: BTreeSet::new() }
        }
        Err(error) => return Err(error).with_context(|| file.display().to_string()),
    };
    let change = Change::between(&promised, &now);
    print!("{}", change.text());
    match verdict(how, &change, &promised.version, &now.version) {
        Verdict::Holds => println!("{} public items, as promised", now.items.len()),
        Verdict::Write => {
            std::fs::write(&file, now.to_text())?;
            println!("{} public items written to {}", now.items.len(), file.display());
        }
        Verdict::Refuse(why) => {
            eprintln!("{why}");
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Compare,
    Write,
    WriteCompatible,
}

/// What is done about a change.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    Write,
    Refuse(String),
}

fn verdict(how: How, change: &Change, promised: &str, now: &str) -> Verdict {
    let write = "cargo run -p throughline-sdk-surface -- write";
    let is_promised = promise_of(promised) == promise_of(now);
    if !change.breaks.is_empty() && is_promised && how != How::WriteCompatible {
        return Verdict::Refuse(format!(
            "expected what version {promised} of the SDK promises, got {} changes that may break an agent: give back \
             what was there (`#[deprecated]`), or raise `version` in Cargo.toml and run `{write}`; where \
             bench/sdk-semver.sh finds that nothing breaks, `{write} compatible`",
            change.breaks.len()
        ));
    }
    match how {
        How::Write | How::WriteCompatible => Verdict::Write,
        How::Compare if change.is_empty() && promised == now => Verdict::Holds,
        How::Compare => Verdict::Refuse(format!(
            "expected every public item of the SDK in crates/sdk/surface.txt, as of version {now}: look at what has \
             changed, run `{write}`, and commit the file"
        )),
    }
}

/// The part of a version that stays the same while nothing breaks (Cargo's SemVer): of 0.1.2 it is 0.1, of 1.2.3 it is 1.
fn promise_of(version: &str) -> Vec<&str> {
    let parts: Vec<&str> = version.split('.').collect();
    let kept = parts.iter().position(|part| *part != "0").map_or(parts.len(), |at| at + 1);
    parts.into_iter().take(kept).collect()
}

/// The public items of a version.
#[derive(Debug, PartialEq, Eq)]
struct Surface {
    version: String,
    items: BTreeSet<String>,
}

impl Surface {
    fn from_text(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines().filter(|line| !line.starts_with("# "));
        let version = lines.next().and_then(|line| line.strip_prefix("version "));
        let version =
            version.context("expected a line `version X.Y.Z` in surface.txt, got none")?;
        Ok(Self { version: version.to_owned(), items: lines.map(str::to_owned).collect() })
    }

    fn to_text(&self) -> String {
        let items: String = self.items.iter().map(|item| format!("{item}\n")).collect();
        format!("{HEAD}version {}\n{items}", self.version)
    }
}

/// What is different between two surfaces.
#[derive(Debug, PartialEq, Eq)]
struct Change {
    gone: Vec<String>,
    came: Vec<String>,
    /// Those of both that may break somebody.
    breaks: Vec<String>,
}

impl Change {
    fn between(before: &Surface, after: &Surface) -> Self {
        let gone: Vec<String> = before.items.difference(&after.items).cloned().collect();
        let came: Vec<String> = after.items.difference(&before.items).cloned().collect();
        // Who matches on an enum that is said to be complete has no arm for it.
        let variants = came.iter().filter(|item| {
            variant_of(item).is_some_and(|of| before.items.contains(&format!("pub enum {of}")))
        });
        let breaks = gone.iter().chain(variants).cloned().collect();
        Self { gone, came, breaks }
    }

    fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.came.is_empty()
    }

    fn text(&self) -> String {
        let gone = self.gone.iter().map(|item| format!("- {item}\n"));
        let came = self.came.iter().map(|item| format!("+ {item}\n"));
        let total = self.gone.len() + self.came.len();
        let mut text: String = gone.chain(came).take(MAX_SHOWN).collect();
        if total > MAX_SHOWN {
            text.push_str(&format!("… and {} more\n", total - MAX_SHOWN));
        }
        text
    }
}

/// The path of the enum that a line tells a variant of: `pub a::Enum::Variant`, with what it holds behind.
fn variant_of(item: &str) -> Option<&str> {
    let path = item.strip_prefix("pub ")?;
    let end = path.find(['(', ' ', '{']).unwrap_or(path.len());
    let (parent, name) = path[..end].rsplit_once("::")?;
    name.starts_with(|first: char| first.is_ascii_uppercase()).then_some(parent)
}

/// What rustdoc tells.
enum Told {
    Items(BTreeSet<String>),
    /// In a form that we cannot read.
    OtherForm,
}

/// The public items, a line each: of the SDK, of the crates that it shows whole, and of what else it names.
fn items(root: &Path) -> anyhow::Result<Told> {
    let rustdoc = Rustdoc::new(root)?;
    let mut all = BTreeSet::new();
    for package in [SDK].iter().chain(&SHOWN_WHOLE) {
        let Told::Items(items) = rustdoc.items(package)? else { return Ok(Told::OtherForm) };
        all.extend(items);
    }
    let Told::Items(nouns) = rustdoc.items(NOUNS)? else { return Ok(Told::OtherForm) };
    let named = named_in(&all);
    all.extend(
        nouns.into_iter().filter(|item| subject_of(item).is_some_and(|of| named.contains(of))),
    );
    Ok(Told::Items(all))
}

/// The names at the root of [`NOUNS`] that these items show: those that are given again, and those in signatures.
fn named_in(items: &BTreeSet<String>) -> BTreeSet<String> {
    let given_again = items.iter().filter_map(|item| item.strip_prefix("pub use throughline::"));
    let spoken = items.iter().flat_map(|item| item.split(NOUNS_PATH).skip(1)).map(first_name);
    given_again.chain(spoken).map(str::to_owned).collect()
}

/// The name at the root of [`NOUNS`] that an item belongs to.
fn subject_of(item: &str) -> Option<&str> {
    // Of an `impl` it is the type, not the trait.
    let from = item.find(" for ").filter(|_| item.starts_with("impl")).unwrap_or(0);
    item[from..].split_once(NOUNS_PATH).map(|(_, rest)| first_name(rest))
}

fn first_name(path: &str) -> &str {
    let end = path.find(|next: char| !next.is_alphanumeric() && next != '_');
    &path[..end.unwrap_or(path.len())]
}

/// rustdoc, which tells of a crate in JSON to who sets `RUSTC_BOOTSTRAP`, a stable one too. Nobody else is to see that:
/// the build scripts of a dozen crates look at it, and all that depends on them would be built twice.
struct Rustdoc<'a> {
    root: &'a Path,
    target: PathBuf,
    program: PathBuf,
}

impl<'a> Rustdoc<'a> {
    fn new(root: &'a Path) -> anyhow::Result<Self> {
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into());
        let target = root.join(target);
        std::fs::create_dir_all(&target)?;
        let program = target.join("rustdoc-that-tells-json");
        const SCRIPT: &str = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n";
        // A newer one would have everything told anew.
        if std::fs::read_to_string(&program).ok().as_deref() != Some(SCRIPT) {
            std::fs::write(&program, SCRIPT)?;
        }
        let made = Command::new("chmod").arg("+x").arg(&program).status()?;
        anyhow::ensure!(made.success(), "expected to make {} a program", program.display());
        Ok(Self { root, target, program })
    }

    fn items(&self, package: &str) -> anyhow::Result<Told> {
        let status = Command::new(env!("CARGO"))
            .current_dir(self.root)
            .env("RUSTDOC", &self.program)
            .args(["rustdoc", "--quiet", "-p", package, "--lib", "--all-features", "--"])
            .args(["-Zunstable-options", "--output-format=json", "--cap-lints=allow"])
            .status()?;
        anyhow::ensure!(status.success(), "expected rustdoc to tell of {package}, got {status}");
        let json = self.target.join("doc").join(package.replace('-', "_")).with_extension("json");
        if format_of(&json)? != FORMAT {
            return Ok(Told::OtherForm);
        }
        let api = public_api::Builder::from_rustdoc_json(&json).omit_blanket_impls(true).build()?;
        let is_asked = |item: &String| !UNASKED.iter().any(|name| is_impl_of(item, name));
        Ok(Told::Items(api.into_items().map(|item| item.to_string()).filter(is_asked).collect()))
    }
}

fn format_of(json: &Path) -> anyhow::Result<u64> {
    #[derive(serde::Deserialize)]
    struct Format {
        format_version: u64,
    }
    let text = std::fs::read(json).with_context(|| json.display().to_string())?;
    Ok(serde_json::from_slice::<Format>(&text)?.format_version)
}

fn is_impl_of(item: &str, name: &str) -> bool {
    item.starts_with("impl") && item.contains(&format!("::{name} for "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surface(version: &str, items: &[&str]) -> Surface {
        Surface {
            version: version.to_owned(),
            items: items.iter().map(|item| (*item).to_owned()).collect(),
        }
    }

    fn judged(how: How, before: &Surface, after: &Surface) -> &'static str {
        let change = Change::between(before, after);
        match verdict(how, &change, &before.version, &after.version) {
            Verdict::Holds => "holds",
            Verdict::Write => "write",
            Verdict::Refuse(why) if why.contains("break an agent") => "breaks",
            Verdict::Refuse(_) => "not written down",
        }
    }

    const SPAN: &str = "pub fn throughline::span(name: &str) -> throughline::SpanBuilder";
    const OPEN: &str = "pub enum throughline::Phase";
    const CLOSED: &str = "#[non_exhaustive] pub enum throughline::Outcome";

    #[test]
    fn what_is_gone_or_changed_breaks_until_the_version_says_so() {
        let before = surface("0.1.0", &[SPAN, OPEN, CLOSED]);
        let removed = |version| surface(version, &[OPEN, CLOSED]);
        let changed = surface("0.1.4", &["pub fn throughline::span(name: u8)", OPEN, CLOSED]);
        for after in [&removed("0.1.0"), &removed("0.1.1"), &changed] {
            assert_eq!(judged(How::Compare, &before, after), "breaks");
            assert_eq!(judged(How::Write, &before, after), "breaks");
            assert_eq!(judged(How::WriteCompatible, &before, after), "write");
        }
        assert_eq!(judged(How::Compare, &before, &removed("0.2.0")), "not written down");
        assert_eq!(judged(How::Write, &before, &removed("0.2.0")), "write");
    }

    #[test]
    fn what_came_is_to_be_written_down() {
        let before = surface("0.1.0", &[OPEN, CLOSED]);
        let grown = surface("0.1.0", &[SPAN, OPEN, CLOSED]);
        assert_eq!(judged(How::Compare, &before, &grown), "not written down");
        assert_eq!(judged(How::Write, &before, &grown), "write");
        assert_eq!(judged(How::Compare, &grown, &grown), "holds");
        let same_later = Surface { version: "0.1.1".to_owned(), items: grown.items.clone() };
        assert_eq!(judged(How::Compare, &grown, &same_later), "not written down");
    }

    #[test]
    fn a_variant_breaks_who_matches_on_a_complete_enum() {
        let before = surface("0.1.0", &[OPEN, CLOSED]);
        for (variant, expected) in [
            ("pub throughline::Phase::Wait", "breaks"),
            ("pub throughline::Phase::Wait(core::time::Duration)", "breaks"),
            ("pub throughline::Outcome::Late", "write"),
            ("pub throughline::Phase::wait: u8", "write"),
        ] {
            let after = surface("0.1.0", &[OPEN, CLOSED, variant]);
            assert_eq!(judged(How::Write, &before, &after), expected, "{variant}");
        }
    }

    #[test]
    fn the_file_says_the_same_when_it_is_read() {
        let surface = surface("0.1.0", &[SPAN, CLOSED]);
        assert_eq!(Surface::from_text(&surface.to_text()).unwrap(), surface);
        assert!(Surface::from_text("pub fn a()\n").is_err());
    }

    #[test]
    fn a_version_promises_up_to_its_first_number_that_is_not_zero() {
        for (version, expected) in [("0.1.2", "0.1"), ("1.2.3", "1"), ("0.0.3", "0.0.3")] {
            assert_eq!(promise_of(version).join("."), expected);
        }
    }

    #[test]
    fn what_a_signature_names_is_part_of_the_surface() {
        let items = [
            "pub use throughline::Phase",
            "pub fn throughline::a(throughline_trace::ErrorType) -> throughline_trace::span::Span",
        ];
        let named = named_in(&items.map(str::to_owned).into());
        assert_eq!(named.iter().collect::<Vec<_>>(), ["ErrorType", "Phase", "span"]);
        for (item, expected) in [
            ("pub fn throughline_trace::Phase::as_str(&self) -> &str", "Phase"),
            ("impl core::convert::From<throughline_trace::A> for throughline_trace::B", "B"),
            ("pub const throughline_trace::keys::OUTCOME: &str", "keys"),
        ] {
            assert_eq!(subject_of(item), Some(expected));
        }
    }

    #[test]
    fn send_and_sync_are_part_of_the_surface() {
        assert!(is_impl_of("impl core::marker::Freeze for throughline::Agent", "Freeze"));
        let kept = "impl core::marker::Send for throughline::Agent";
        assert!(!UNASKED.iter().any(|name| is_impl_of(kept, name)));
    }
}
