//! Streams of every kind to one container, all open at the same time, half of which are dropped in the middle: what each of
//! them sends and gets is checked to the byte.
//!
//! The container says `line 1`, `line 2`, … in its log and to who attaches, and a port of its pod echoes.

use futures_util::{AsyncBufReadExt, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, LogParams};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Opened at a time: engines take their time for each exec.
const OPENING: usize = 16;
/// What echoing streams exchange before all of them are open, and again afterwards.
const MESSAGES: u32 = 10;
/// What followers of the output read before they count as open.
const LINES: u32 = 2;

pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Where the streams go.
#[derive(Clone)]
pub struct Place {
    pub pods: Api<Pod>,
    pub pod: &'static str,
    pub container: &'static str,
    pub echo_port: u16,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Exec,
    Attach,
    Log,
    Forward,
}

const KINDS: [Kind; 4] = [Kind::Exec, Kind::Attach, Kind::Log, Kind::Forward];

/// Streams that are open: each waits to be told to go on, and half of them are dropped then.
pub struct Crowd {
    go_on: CancellationToken,
    streams: JoinSet<Result<(), Error>>,
}

impl Crowd {
    /// Until each has had what it must have; an error is what one of them missed.
    pub async fn finish(mut self) -> Result<(), Error> {
        self.go_on.cancel();
        while let Some(ended) = self.streams.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Opens so many, as many of each kind.
pub async fn open(place: &Place, count: usize) -> Crowd {
    let go_on = CancellationToken::new();
    let mut streams = JoinSet::new();
    let mut opening = futures_util::stream::iter(0..count)
        .map(|number| {
            let (place, go_on) = (place.clone(), go_on.clone());
            async move {
                let (opened, is_open) = oneshot::channel();
                let kind = KINDS[number % KINDS.len()];
                let dropped = number / KINDS.len() % 2 == 1;
                let task = tokio::spawn(async move {
                    let stream = stream(&place, kind, dropped, opened, go_on);
                    stream
                        .await
                        .map_err(|error| format!("{kind:?} {number}: {error}").into())
                });
                // An end before it is open shows as the task's.
                let _ = is_open.await;
                (number, task)
            }
        })
        .buffer_unordered(OPENING);
    while let Some((_, task)) = opening.next().await {
        streams.spawn(async move { task.await? });
    }
    drop(opening);
    Crowd { go_on, streams }
}

async fn stream(
    place: &Place,
    kind: Kind,
    dropped: bool,
    opened: oneshot::Sender<()>,
    go_on: CancellationToken,
) -> Result<(), Error> {
    let Place {
        pods, pod, echo_port, ..
    } = place;
    let parameters = AttachParams::default().stderr(false).container(place.container);
    match kind {
        Kind::Exec => {
            let mut attached = pods.exec(pod, ["cat"], &parameters.stdin(true)).await?;
            let mut stdin = attached.stdin().ok_or("no stdin")?;
            let mut stdout = attached.stdout().ok_or("no stdout")?;
            echo(&mut stdin, &mut stdout, 0).await?;
            let _ = opened.send(());
            go_on.cancelled().await;
            if dropped {
                attached.abort();
                return Ok(());
            }
            echo(&mut stdin, &mut stdout, MESSAGES).await?;
            stdin.shutdown().await?;
            let status = attached.take_status().ok_or("no status")?.await;
            let status = status.and_then(|status| status.status).unwrap_or_default();
            match status.as_str() {
                "Success" => Ok(()),
                status => Err(format!("it ended with {status:?}").into()),
            }
        }
        Kind::Attach => {
            let mut attached = pods.attach(pod, &parameters).await?;
            let stdout = attached.stdout().ok_or("no stdout")?;
            let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
            let mut last = None;
            for _ in 0..LINES {
                last = Some(follows(last, &lines.next_line().await?.ok_or("it ended")?)?);
            }
            let _ = opened.send(());
            // What comes meanwhile is read, as a terminal does.
            loop {
                tokio::select! {
                    line = lines.next_line() => last = Some(follows(last, &line?.ok_or("it ended")?)?),
                    () = go_on.cancelled() => break,
                }
            }
            attached.abort();
            Ok(())
        }
        Kind::Log => {
            let parameters = LogParams {
                container: Some(place.container.to_owned()),
                follow: true,
                ..Default::default()
            };
            let mut lines = pods.log_stream(pod, &parameters).await?.lines();
            let mut last = Some(0);
            for _ in 0..LINES {
                last = Some(follows(last, &lines.try_next().await?.ok_or("it ended")?)?);
            }
            let _ = opened.send(());
            loop {
                tokio::select! {
                    line = lines.try_next() => last = Some(follows(last, &line?.ok_or("it ended")?)?),
                    () = go_on.cancelled() => return Ok(()),
                }
            }
        }
        Kind::Forward => {
            let mut forwarder = pods.portforward(pod, &[*echo_port]).await?;
            let stream = forwarder.take_stream(*echo_port).ok_or("no stream")?;
            let (mut reader, mut writer) = tokio::io::split(stream);
            echo(&mut writer, &mut reader, 0).await?;
            let _ = opened.send(());
            go_on.cancelled().await;
            if dropped {
                forwarder.abort();
                return Ok(());
            }
            echo(&mut writer, &mut reader, MESSAGES).await
        }
    }
}

/// Lines are numbered: none may be missing, or come twice.
fn follows(last: Option<u64>, line: &str) -> Result<u64, Error> {
    let number: u64 = line
        .strip_prefix("line ")
        .ok_or(format!("this is no line: {line:?}"))?
        .trim()
        .parse()?;
    match last {
        Some(last) if number != last + 1 => Err(format!("line {number} follows {last}").into()),
        _ => Ok(number),
    }
}

async fn echo(
    writer: &mut (impl AsyncWrite + Unpin),
    reader: &mut (impl AsyncRead + Unpin),
    from: u32,
) -> Result<(), Error> {
    for number in from..from + MESSAGES {
        let message = format!("message {number:08}\n");
        writer.write_all(message.as_bytes()).await?;
        writer.flush().await?;
        let mut answer = vec![0; message.len()];
        reader.read_exact(&mut answer).await?;
        if answer != message.as_bytes() {
            return Err(format!("{message:?} came back as {:?}", String::from_utf8_lossy(&answer)).into());
        }
    }
    Ok(())
}
