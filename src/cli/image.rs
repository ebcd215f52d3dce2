//! `krust image`: the images of the engine that the configuration names (upstream: `docker load`, `crictl images`).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::server::ServerArguments;
use crate::app::images::{Archive, EngineImages, Image, Reference};
use crate::telemetry;

#[derive(Subcommand)]
pub(super) enum ImageCommand {
    /// Give the engine the images of an archive: what docker save writes, or an OCI image layout, plain or gzip'd.
    Load(LoadArguments),
    /// List the engine's images.
    #[command(visible_alias = "list")]
    Ls(ListArguments),
}

#[derive(Args)]
pub(super) struct LoadArguments {
    /// The archive; - is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What the image is called, if the archive does not say it.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    engine: EngineArguments,
}

#[derive(Args)]
pub(super) struct ListArguments {
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    engine: EngineArguments,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// The same as the server's.
#[derive(Args)]
struct EngineArguments {
    /// A TOML file with settings; may be given several times, later ones win.
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// The engine: docker, containerd or auto [default: auto].
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<String>,
}

impl EngineArguments {
    /// Runs a command on the engine's images.
    fn run<T>(&self, command: impl AsyncFnOnce(EngineImages) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let server = ServerArguments {
            config: self.config.clone(),
            runtime: self.runtime.clone(),
            ..ServerArguments::default()
        };
        let settings = server.settings()?;
        // What the engine's backends say in passing is for servers; RUST_LOG shows it.
        telemetry::start_logs("error", false)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.context("cannot start threads")?;
        let result = runtime.block_on(async { command(EngineImages::connect(&settings).await?).await });
        runtime.shutdown_background();
        result
    }
}

pub(super) fn run(command: &ImageCommand) -> anyhow::Result<()> {
    match command {
        ImageCommand::Load(arguments) => load(arguments),
        ImageCommand::Ls(arguments) => list(arguments),
    }
}

fn load(arguments: &LoadArguments) -> anyhow::Result<()> {
    let name = arguments.name.as_deref().map(Reference::parse).transpose()?;
    let shown = match arguments.file.as_path() {
        path if path == Path::new("-") => "standard input".to_owned(),
        path => path.display().to_string(),
    };
    let mut archive = read(&arguments.file).with_context(|| format!("cannot load {shown}"))?;
    archive
        .name(name.as_ref())
        .with_context(|| format!("cannot load {shown}"))?;
    let loaded = arguments.engine.run(async |images| {
        let loaded = images.load(archive).await;
        loaded.with_context(|| format!("cannot load {shown} into {}", images.endpoint))
    })?;
    let lines: Vec<String> = loaded.iter().map(|name| format!("Loaded image: {name}\n")).collect();
    super::print(&lines.concat())
}

fn read(path: &Path) -> anyhow::Result<Archive> {
    if path == Path::new("-") {
        if io::IsTerminal::is_terminal(&io::stdin()) {
            bail!("it is a terminal: pipe an archive into krust, or name a file");
        }
        return Ok(Archive::from_stream(io::stdin().lock())?);
    }
    let file = File::open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(Archive::open(file)?),
        // A pipe by name.
        false => Ok(Archive::from_stream(file)?),
    }
}

fn list(arguments: &ListArguments) -> anyhow::Result<()> {
    let images = arguments.engine.run(async |images| Ok(images.list().await?))?;
    match arguments.output {
        Output::Table => super::print(&table(&images)),
        Output::Json => super::print(&json(&images)),
    }
}

/// Repository and tag or digest, one for each name of an image.
fn names(image: &Image) -> Vec<(String, String)> {
    let split = |name: &String| {
        let (repository, version) = match name.split_once('@') {
            Some((repository, digest)) => (repository, digest),
            None => name.rsplit_once(':')?,
        };
        Some((repository.to_owned(), version.to_owned()))
    };
    // A digest is shown where there is no tag.
    let list = match image.repo_tags.is_empty() {
        true => &image.repo_digests,
        false => &image.repo_tags,
    };
    let named: Vec<(String, String)> = list.iter().filter_map(split).collect();
    match named.is_empty() {
        true => vec![("<none>".to_owned(), "<none>".to_owned())],
        false => named,
    }
}

fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

/// As other tools print sizes: three digits, in powers of 1000.
fn size(bytes: u64) -> String {
    let (mut value, mut units) = (bytes as f64, ["B", "kB", "MB", "GB", "TB"].into_iter());
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    match value {
        value if unit == "B" || value >= 100.0 => format!("{value:.0}{unit}"),
        value if value >= 10.0 => format!("{value:.1}{unit}"),
        value => format!("{value:.2}{unit}"),
    }
}

fn table(images: &[Image]) -> String {
    let mut rows: Vec<[String; 4]> = Vec::new();
    for image in images {
        for (repository, version) in names(image) {
            let version = match version.strip_prefix("sha256:") {
                Some(_) => format!("sha256:{}", short(&version)),
                None => version,
            };
            rows.push([repository, version, short(&image.id).to_owned(), size(image.size_bytes)]);
        }
    }
    rows.sort();
    rows.insert(0, ["REPOSITORY", "TAG", "IMAGE ID", "SIZE"].map(str::to_owned));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        let cells = (0..3).map(|at| format!("{:<width$}   ", row[at], width = widths[at]));
        format!("{}{}\n", cells.collect::<String>(), row[3])
    };
    rows.iter().map(line).collect()
}

/// In the words of CRI.
fn json(images: &[Image]) -> String {
    let images: Vec<serde_json::Value> = images
        .iter()
        .map(|image| {
            serde_json::json!({
                "id": image.id, "repoTags": image.repo_tags, "repoDigests": image.repo_digests,
                "size": image.size_bytes,
            })
        })
        .collect();
    let list = serde_json::json!({"images": images});
    format!("{list:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let image = |tags: &[&str], digests: &[String], bytes: u64| Image {
            id: digest.clone(),
            repo_tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            repo_digests: digests.to_vec(),
            size_bytes: bytes,
            ..Image::default()
        };
        let images = [
            image(&["localhost:5000/b:1", "a:2"], &[], 4_261_550),
            image(&[], &[format!("c@{digest}")], 999),
            image(&[], &[], 123_456_789_012),
        ];
        let expected = "\
REPOSITORY         TAG                   IMAGE ID       SIZE
<none>             <none>                abababababab   123GB
a                  2                     abababababab   4.26MB
c                  sha256:abababababab   abababababab   999B
localhost:5000/b   1                     abababababab   4.26MB
";
        assert_eq!(table(&images), expected);
        let list: serde_json::Value = serde_json::from_str(&json(&images)).unwrap();
        assert_eq!(list["images"][0]["repoTags"][1], "a:2");
    }
}
