//! The measured process: started on free ports, watched through /proc, stopped by SIGTERM.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

/// Clock ticks a second in /proc/PID/stat; Linux has used 100 on every architecture for decades.
const TICKS_PER_SECOND: f64 = 100.0;

/// Bytes of a page in /proc/PID/statm.
const PAGE_BYTES: u64 = 4096;

/// Objectives over 30 days, which rules read from counters; their burn is asked for.
const SLOS: &str = r#"
apiVersion: openslo/v1
kind: SLO
metadata: {name: runs-succeed}
spec:
  service: bench
  indicator:
    spec:
      ratioMetric:
        good: {metricSource: {type: throughline, spec: {spans: span.role == "agent_run" && span.status != "ERROR"}}}
        total: {metricSource: {type: throughline, spec: {spans: span.role == "agent_run"}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
---
apiVersion: openslo/v1
kind: SLO
metadata: {name: steps-in-time}
spec:
  service: bench
  indicator:
    spec:
      thresholdMetric:
        metricSource: {type: throughline, spec: {spans: span.role == "step", value: span.duration_ms}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{op: lte, value: 800, target: 0.95}]
"#;

/// A running server.
pub(crate) struct Server {
    child: Child,
    data_dir: PathBuf,
    ports: [u16; 3],
}

/// What a line of `/proc/PID/stat` or of one thread says was taken.
fn cpu_seconds(stat: &str) -> anyhow::Result<f64> {
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok());
    let (user, system) = (ticks(11), ticks(12));
    let sum = user.zip(system).map(|(u, s)| u + s).context("unexpected /proc/PID/stat")?;
    Ok(sum / TICKS_PER_SECOND)
}

impl Server {
    /// Starts the binary and waits until it is ready.
    pub(crate) async fn start(binary: &Path, scratch: &Path) -> anyhow::Result<Self> {
        Self::start_with(binary, scratch, SLOS).await
    }

    /// The same, with rules of its own.
    pub(crate) async fn start_with(
        binary: &Path,
        scratch: &Path,
        rules: &str,
    ) -> anyhow::Result<Self> {
        std::fs::write(scratch.join("slo.yaml"), rules)?;
        Self::start_configured(binary, scratch, "governance: {rules: [slo.yaml]}\n").await
    }

    /// The same, with a configuration of its own.
    pub(crate) async fn start_configured(
        binary: &Path,
        scratch: &Path,
        configuration: &str,
    ) -> anyhow::Result<Self> {
        let sockets = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0"));
        let mut ports = [0; 3];
        for (port, socket) in ports.iter_mut().zip(&sockets) {
            *port = socket
                .as_ref()
                .map_err(|e| anyhow::anyhow!("no free port: {e}"))?
                .local_addr()?
                .port();
        }
        drop(sockets);
        let data_dir = scratch.join("data");
        std::fs::write(scratch.join("throughline.yaml"), configuration)?;
        let child = Command::new(binary)
            .arg("--config")
            .arg(scratch.join("throughline.yaml"))
            .arg("serve")
            .arg("--data-dir")
            .arg(&data_dir)
            .args(["--grpc-port", &ports[0].to_string()])
            .args(["--http-port", &ports[1].to_string()])
            .args(["--web-port", &ports[2].to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut server = Self { child, data_dir, ports };
        let ready = server.web_url("/readyz");
        let http = crate::client::http()?;
        while !http.get(&ready).send().await.is_ok_and(|reply| reply.status().is_success()) {
            if let Some(status) = server.child.try_wait()? {
                anyhow::bail!("the server ended before it was ready: {status}");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(server)
    }

    /// Where OTLP/gRPC goes.
    pub(crate) fn grpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// A page or API path.
    pub(crate) fn web_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[2])
    }

    /// CPU time the process has taken, seconds, user and system.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(&std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?)
    }

    /// CPU time that its threads have taken by their names, seconds, user and system; of those that are there.
    pub(crate) fn thread_cpu_seconds(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let mut found = BTreeMap::new();
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let task = task?.path();
            // One that ended meanwhile.
            let (Ok(name), Ok(stat)) = (
                std::fs::read_to_string(task.join("comm")),
                std::fs::read_to_string(task.join("stat")),
            ) else {
                continue;
            };
            *found.entry(name.trim().to_owned()).or_insert(0.0) += cpu_seconds(&stat)?;
        }
        Ok(found)
    }

    /// Memory that the process holds, bytes.
    pub(crate) fn rss_bytes(&self) -> anyhow::Result<u64> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages = statm.split_whitespace().nth(1).and_then(|f| f.parse::<u64>().ok());
        Ok(pages.context("unexpected /proc/PID/statm")? * PAGE_BYTES)
    }

    /// The most memory that the process has held, bytes.
    pub(crate) fn peak_rss_bytes(&self) -> anyhow::Result<u64> {
        self.status_bytes("VmHWM:")
    }

    /// Memory that is no file's: what the process holds but could not read again, bytes.
    pub(crate) fn own_bytes(&self) -> anyhow::Result<u64> {
        self.status_bytes("RssAnon:")
    }

    fn status_bytes(&self, of: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(of));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(kib.context("unexpected /proc/PID/status")? * 1024)
    }

    /// Bytes of the data directory, write-ahead logs included.
    pub(crate) fn disk_bytes(&self) -> anyhow::Result<u64> {
        fn size(path: &Path) -> std::io::Result<u64> {
            let mut sum = 0;
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                let meta = entry.metadata()?;
                sum += if meta.is_dir() { size(&entry.path())? } else { meta.len() };
            }
            Ok(sum)
        }
        Ok(size(&self.data_dir)?)
    }

    /// SIGTERM, and the wait for a clean end.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        let status = tokio::task::spawn_blocking(move || self.child.wait()).await??;
        anyhow::ensure!(status.success(), "expected a clean end, got {status}");
        Ok(())
    }
}
