//! An object store that speaks S3's API (AWS, MinIO, Ceph, R2 …): one object a checkpoint, which is never
//! written over. Requests are signed with AWS Signature Version 4, in the query.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Client, Response, StatusCode};
use rusty_s3::actions::{ListObjectsV2, S3Action};
use rusty_s3::{Bucket, Credentials};
use throughline_act::{cause, http_client, read_answer};
use throughline_store::Checkpoint;

/// Longest wait for an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a signed address is good for: a request, and clocks that differ.
const SIGNED_FOR: Duration = Duration::from_secs(300);

/// Objects that are read back, the newest.
const MAX_READ_OBJECTS: usize = 1_000;

/// Pages of a thousand names that are listed at most.
const MAX_LIST_PAGES: usize = 1_000;

/// Objects that are fetched at once.
const FETCHED_AT_ONCE: usize = 8;

/// Longest checkpoint that is read back, bytes.
const MAX_OBJECT_BYTES: usize = 64 * 1024;

/// Digits of a chain number in a name: names sort as numbers do.
const NUMBER_DIGITS: usize = 20;

/// Where the objects lie, and who writes them.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The bucket with its endpoint and region.
    pub(crate) bucket: Bucket,
    /// What names begin with: empty, or ending with a slash.
    pub(crate) prefix: String,
    /// A file with credentials in AWS's form; the environment's count without one.
    pub(crate) credentials_file: Option<PathBuf>,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.bucket.base_url() == other.bucket.base_url()
            && self.bucket.region() == other.bucket.region()
            && (&self.prefix, &self.credentials_file) == (&other.prefix, &other.credentials_file)
    }
}

impl Eq for Place {}

/// Writes checkpoints, oldest first; the first that is not taken ends it. One that is there already must be
/// the same.
pub(super) async fn write(place: &Place, checkpoints: &[Checkpoint]) -> Result<(), String> {
    let door = Door::open(place)?;
    for checkpoint in checkpoints {
        door.put(checkpoint).await?;
    }
    Ok(())
}

/// The newest checkpoints that are there.
pub(super) async fn read(place: &Place) -> Result<Vec<String>, String> {
    let door = Door::open(place)?;
    let door = &door;
    let names = door.names().await?;
    let fetched = names.into_iter().map(|name| async move { door.get(&name).await });
    stream::iter(fetched).buffered(FETCHED_AT_ONCE).try_collect().await
}

/// A place with what it takes to go there.
struct Door<'a> {
    place: &'a Place,
    client: Client,
    credentials: Credentials,
}

impl<'a> Door<'a> {
    fn open(place: &'a Place) -> Result<Self, String> {
        let is_tls = place.bucket.base_url().scheme() == "https";
        let client = http_client(is_tls, REQUEST_TIMEOUT)?;
        // Read each time: what rotates is followed.
        let credentials = credentials(place.credentials_file.as_deref())?;
        Ok(Self { place, client, credentials })
    }

    async fn put(&self, checkpoint: &Checkpoint) -> Result<(), String> {
        let number = checkpoint.number;
        let name = format!("{}{number:0NUMBER_DIGITS$}.json", self.place.prefix);
        let line = checkpoint.to_line();
        let mut action = self.place.bucket.put_object(Some(&self.credentials), &name);
        let headers = action.headers_mut();
        headers.insert("content-type", "application/json");
        headers.insert("if-none-match", "*");
        let request = self
            .client
            .put(action.sign(SIGNED_FOR).to_string())
            .header("content-type", "application/json")
            .header("if-none-match", "*")
            .body(line.clone());
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        if answer.status() != StatusCode::PRECONDITION_FAILED {
            return self.succeeded(&name, answer).await.map(drop);
        }
        // A lost answer leads here, and so does somebody who was there before us.
        if self.get(&name).await?.trim_end() == line {
            return Ok(());
        }
        Err(format!("{} holds another checkpoint of this number already", self.shown(&name)))
    }

    async fn get(&self, name: &str) -> Result<String, String> {
        let action = self.place.bucket.get_object(Some(&self.credentials), name);
        let request = self.client.get(action.sign(SIGNED_FOR).to_string());
        let answer = request.send().await.map_err(|error| self.unreachable(error))?;
        let answer = self.succeeded(name, answer).await?;
        let (bytes, is_whole) = read_answer(answer, MAX_OBJECT_BYTES)
            .await
            .map_err(|error| format!("{}: {error}", self.shown(name)))?;
        if !is_whole {
            return Err(format!(
                "{} is longer than {MAX_OBJECT_BYTES} bytes, and no checkpoint",
                self.shown(name)
            ));
        }
        // Verification tells what is no checkpoint.
        Ok(String::from_utf8_lossy(&bytes).replace('\n', " "))
    }

    /// The names of the newest objects, in order.
    async fn names(&self) -> Result<VecDeque<String>, String> {
        let mut names = VecDeque::new();
        let mut next: Option<String> = None;
        for _ in 0..MAX_LIST_PAGES {
            let mut action = self.place.bucket.list_objects_v2(Some(&self.credentials));
            action.with_prefix(self.place.prefix.as_str());
            if let Some(token) = &next {
                action.with_continuation_token(token.as_str());
            }
            let request = self.client.get(action.sign(SIGNED_FOR).to_string());
            let answer = request.send().await.map_err(|error| self.unreachable(error))?;
            let answer = self.succeeded("", answer).await?;
            let text = answer.text().await.map_err(|error| self.unreachable(error))?;
            let page = ListObjectsV2::parse_response(&text)
                .map_err(|error| format!("{}: no list of objects: {error}", self.shown("")))?;
            names.extend(
                page.contents.into_iter().map(|object| object.key).filter(|name| is_ours(name)),
            );
            let surplus = names.len().saturating_sub(MAX_READ_OBJECTS);
            names.drain(..surplus);
            next = page.next_continuation_token;
            if next.is_none() {
                return Ok(names);
            }
        }
        Err(format!(
            "{} has more than {} objects: let its lifecycle rules move the oldest away",
            self.shown(""),
            MAX_LIST_PAGES * 1_000
        ))
    }

    /// An address without its signature.
    fn shown(&self, name: &str) -> String {
        format!("s3://{}/{name}", self.place.bucket.name())
    }

    fn unreachable(&self, error: reqwest::Error) -> String {
        format!("{}: {}", self.shown(""), cause(error))
    }

    /// The answer, if it is a good one.
    async fn succeeded(&self, name: &str, answer: Response) -> Result<Response, String> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        let said: Vec<&str> =
            ["Code", "Message"].into_iter().filter_map(|tag| element(&text, tag)).collect();
        Err(format!("{} answered {status} {}", self.shown(name), said.join(": ")).trim().to_owned())
    }
}

/// Whether an object is a checkpoint, by its name.
fn is_ours(name: &str) -> bool {
    let last = name.rsplit('/').next().and_then(|last| last.strip_suffix(".json"));
    last.is_some_and(|last| {
        last.len() == NUMBER_DIGITS && last.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The text of the first element of a name, as S3's errors have it.
fn element<'t>(text: &'t str, tag: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{tag}>"))?;
    rest.split_once("</").map(|(inner, _)| inner.trim())
}

/// Who writes: a file in AWS's form, or what the environment says.
fn credentials(file: Option<&Path>) -> Result<Credentials, String> {
    let Some(path) = file else {
        return Credentials::from_env().ok_or_else(|| {
            "expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or a \
             `credentials_file`"
                .to_owned()
        });
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read `credentials_file` {}: {error}", path.display()))?;
    of_profile(&text).ok_or_else(|| {
        format!(
            "expected aws_access_key_id and aws_secret_access_key under [default] in {}",
            path.display()
        )
    })
}

/// The credentials of the profile `default`: AWS's shared credentials file, an INI file.
fn of_profile(text: &str) -> Option<Credentials> {
    let mut is_default = false;
    let (mut key, mut secret, mut token) = (None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_default = name.trim() == "default";
        } else if let Some((name, value)) = line.split_once('=').filter(|_| is_default) {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim() {
                "aws_access_key_id" => key = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(match token {
        Some(token) => Credentials::new_with_token(key?, secret?, token),
        None => Credentials::new(key?, secret?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_profile_of_a_file_counts() {
        let text = "# made by hand\n[other]\naws_access_key_id = X\n[default]\naws_access_key_id=AKIA\n aws_secret_access_key = s/e=c \naws_session_token =\n[last]\naws_secret_access_key = no\n";
        let found = of_profile(text).expect("credentials");
        assert_eq!((found.key(), found.secret(), found.token()), ("AKIA", "s/e=c", None));
        assert!(of_profile("[default]\naws_access_key_id = AKIA\n").is_none());
        let with_token = format!("{text}[default]\naws_session_token = t\n");
        assert_eq!(of_profile(&with_token).expect("credentials").token(), Some("t"));
    }

    #[test]
    fn names_of_checkpoints_are_told_from_others() {
        assert!(is_ours("a/b/00000000000000000007.json"));
        for other in ["a/7.json", "a/00000000000000000007", "a/0000000000000000000x.json", ""] {
            assert!(!is_ours(other), "{other}");
        }
        let error = "<Error><Code>AccessDenied</Code><Message> No. </Message></Error>";
        assert_eq!(
            (element(error, "Code"), element(error, "Message")),
            (Some("AccessDenied"), Some("No."))
        );
        assert_eq!(element(error, "Key"), None);
    }
}
