//! The server in the test images: this binary under the name `agnhost` (upstream: test/images/agnhost, of which
//! this has what our tests need).
//!
//! - `agnhost serve [--http PORT] [--udp PORT] [--grpc PORT] [--slow-end SECONDS]` answers on TCP and UDP; the end on
//!   SIGTERM can be put off. Each request is a line of its output. gRPC is the health service, which is well for ever
//!   or for `--grpc-well-seconds N`.
//! - `agnhost say WORDS` prints its arguments as JSON.
//! - `agnhost webhook PORT CERTIFICATE KEY` answers reviews: see [`crate::agnhost_webhook`].
//! - `agnhost flunders PORT CERTIFICATE KEY` serves an API group: see [`crate::flunders`]. It asks the API server which
//!   front proxies to believe, with its pod's token.
//! - `agnhost wait` does nothing until SIGTERM.
//! - `agnhost dial http|udp HOST PORT REQUEST` and `agnhost resolve [--tcp] NAME TYPE` ask others and print the answer.
//! - `agnhost check-token FILE AUDIENCE` looks a token's issuer up and checks the token with its keys.
//! - `--https PORT` serves TLS with a certificate of its own; `--copies`, `--writes-to` and `--reads-from` make it a part of a
//!   guestbook, whose path is `/entries?add=X`.
//!
//! A path with `?tell=1` answers with the method and the path; `/dial?host=H&port=P&protocol=http&request=R` asks another one.
//!
//! Paths: `/hostname`, `/clientip` (address:port), `/echo?msg=X&code=N`, `/header?key=X`, `/healthz` (fails from
//! `?after=SECONDS` on), `/redirect?to=URL`, `/delay?seconds=N`, `/shell?cmd=X`, `/exit?code=N`. UDP: `hostname`, `clientip`,
//! `echo X`.

use crate::{dialing, guestbook, issuer};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The file in the image.
pub const PATH: &str = "agnhost";

static BEGUN: OnceLock<Instant> = OnceLock::new();
static ENDING: AtomicI32 = AtomicI32::new(0);
static GRPC_WELL_SECONDS: AtomicU64 = AtomicU64::new(u64::MAX);
static SLOW_END_SECONDS: AtomicU64 = AtomicU64::new(0);

/// Whether this process is the server and not the tests.
pub fn is_meant() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|name| std::path::Path::new(&name).file_name() == Some(PATH.as_ref()))
}

pub fn main() -> ExitCode {
    BEGUN.get_or_init(Instant::now);
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("say") => println!("{}", serde_json::to_string(&words[1..]).unwrap()),
        Some("wait") => wait_for_the_end(),
        Some("dial") => return printed(dialing::dial(&words[1..])),
        Some("resolve") => return printed(dialing::resolve_words(&words[1..])),
        Some("check-token") => return printed(issuer::check(&words[1..])),
        Some("serve") => serve(&words[1..]),
        Some("webhook") => match &words[1..] {
            [port, certificate, key] => {
                crate::agnhost_webhook::serve(port.parse().expect("a port"), certificate, key);
            }
            other => panic!("{other:?} are not a port, a certificate and a key"),
        },
        Some("flunders") => return printed(flunders(&words[1..])),
        _ => {
            eprintln!("agnhost serve | say | webhook | wait");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn flunders(words: &[String]) -> Result<String, String> {
    let [port, certificate, key] = words else {
        return Err(format!("{words:?} are not a port, a certificate and a key"));
    };
    let port: u16 = port.parse().map_err(|_| "a port".to_owned())?;
    let read = |file: &String| std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"));
    let (certificate, key) = (read(certificate)?, read(key)?);
    let trusted = issuer::get(
        "https://kubernetes.default.svc.cluster.local/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
    )?;
    let front_proxies = trusted["data"]["requestheader-client-ca-file"]
        .as_str()
        .ok_or("no front proxies")?;
    let pem = crate::flunders::Pem {
        certificate: &certificate,
        key: &key,
        front_proxies,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(async {
        let listener = tokio::net::TcpListener::bind(("0.0.0.0", port)).await;
        let listener = listener.map_err(|error| error.to_string())?;
        println!("serving flunders");
        Arc::new(crate::flunders::Flunders::default())
            .serve(listener, pem)
            .await;
        Ok(String::new())
    })
}

fn printed(answer: Result<String, String>) -> ExitCode {
    match answer {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

extern "C" fn on_signal(signal: i32) {
    ENDING.store(signal, Ordering::Relaxed);
}

/// The first process of a container gets only the signals that it asks for.
fn wait_for_the_end() {
    // SAFETY: the handler only stores a number.
    unsafe {
        let handler = on_signal as extern "C" fn(i32) as libc::sighandler_t;
        libc::signal(libc::SIGTERM, handler);
        libc::signal(libc::SIGINT, handler);
    }
    while ENDING.load(Ordering::Relaxed) == 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(SLOW_END_SECONDS.load(Ordering::Relaxed)));
}

fn serve(words: &[String]) {
    for pair in words.chunks(2) {
        let [flag, value] = pair else {
            panic!("{pair:?} needs a value");
        };
        match flag.as_str() {
            "--copies" => {
                guestbook::follow(value.clone());
                continue;
            }
            "--writes-to" => {
                guestbook::writes_to(value.clone());
                continue;
            }
            "--reads-from" => {
                guestbook::reads_from(value.clone());
                continue;
            }
            _ => {}
        }
        let number: u64 = value.parse().expect("a number");
        let port = u16::try_from(number).unwrap_or_default();
        match flag.as_str() {
            "--http" => {
                let listener = TcpListener::bind(("0.0.0.0", port)).expect("the TCP port");
                std::thread::spawn(move || {
                    for stream in listener.incoming().flatten() {
                        std::thread::spawn(move || {
                            // A client that goes away is no concern of the server.
                            let Ok(peer) = stream.peer_addr() else { return };
                            let _ = answer(stream, peer);
                        });
                    }
                });
            }
            "--https" => {
                let listener = TcpListener::bind(("0.0.0.0", port)).expect("the TCP port");
                let config = Arc::new(certified());
                std::thread::spawn(move || {
                    for stream in listener.incoming().flatten() {
                        let config = config.clone();
                        std::thread::spawn(move || {
                            let Ok(peer) = stream.peer_addr() else { return };
                            let connection = rustls::ServerConnection::new(config).expect("a configuration");
                            let mut stream = rustls::StreamOwned::new(connection, stream);
                            let _ = answer(&mut stream, peer);
                            stream.conn.send_close_notify();
                            let _ = stream.flush();
                        });
                    }
                });
            }
            "--udp" => {
                let socket = UdpSocket::bind(("0.0.0.0", port)).expect("the UDP port");
                std::thread::spawn(move || answer_datagrams(&socket));
            }
            "--grpc" => {
                let listener = TcpListener::bind(("0.0.0.0", port)).expect("the gRPC port");
                std::thread::spawn(move || answer_health_checks(listener));
            }
            "--grpc-well-seconds" => GRPC_WELL_SECONDS.store(number, Ordering::Relaxed),
            "--slow-end" => SLOW_END_SECONDS.store(number, Ordering::Relaxed),
            other => panic!("{other} is not known"),
        }
    }
    println!("serving");
    wait_for_the_end();
}

fn hostname() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// `grpc.health.v1.Health/Check` over HTTP/2: SERVING, or NOT_SERVING.
fn answer_health_checks(listener: TcpListener) {
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = || {
        let well = BEGUN
            .get()
            .is_some_and(|begun| begun.elapsed().as_secs() < GRPC_WELL_SECONDS.load(Ordering::Relaxed));
        let message: &[u8] = if well {
            b"\0\0\0\0\x02\x08\x01"
        } else {
            b"\0\0\0\0\x02\x08\x02"
        };
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let frames = [
            Frame::data(bytes::Bytes::from_static(message)),
            Frame::trailers(trailers),
        ];
        let body = StreamBody::new(futures_util::stream::iter(
            frames.map(Ok::<_, std::convert::Infallible>),
        ));
        http::Response::builder()
            .header("content-type", "application/grpc")
            .body(body)
    };
    runtime.expect("a runtime").block_on(async move {
        listener.set_nonblocking(true).expect("a listener that does not block");
        let listener = tokio::net::TcpListener::from_std(listener).expect("the listener");
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                println!("gRPC {}", request.uri().path());
                answer()
            });
            let executor = hyper_util::rt::TokioExecutor::new();
            let connection = hyper::server::conn::http2::Builder::new(executor)
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
}

fn answer_datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]).trim().to_owned();
        println!("UDP {text}");
        let answer = match text.split_once(' ') {
            Some(("echo", rest)) => rest.to_owned(),
            _ if text == "clientip" => peer.to_string(),
            _ => hostname(),
        };
        let _ = socket.send_to(answer.as_bytes(), peer);
    }
}

/// TLS for a certificate that nobody has signed.
fn certified() -> rustls::ServerConfig {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(vec!["agnhost".to_owned()]).expect("a certificate");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a configuration")
}

fn answer(mut stream: impl Read + Write, peer: SocketAddr) -> std::io::Result<()> {
    let mut reader = BufReader::new(&mut stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, v)| v.clone());
    let length = header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let method = first.split(' ').next().unwrap_or_default();
    println!("{method} {target}");
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let of = |wanted: &str| {
        let found = query.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let seconds = |wanted: &str| of(wanted).parse().map(Duration::from_secs).ok();
    let mut location = None;
    let (code, text) = match path {
        path if !of("tell").is_empty() => (200, format!("{method} {path}")),
        "/entries" => guestbook::answer(&of("add")),
        "/dial" => {
            let port = of("port").parse().unwrap_or(80);
            match dialing::ask(&of("protocol"), &of("host"), port, &of("request")) {
                Ok(answer) => (200, serde_json::json!({"responses": [answer]}).to_string()),
                Err(why) => (200, serde_json::json!({"errors": [why]}).to_string()),
            }
        }
        "/clientip" => (200, peer.to_string()),
        "/echo" if !body.is_empty() => (200, String::from_utf8_lossy(&body).into_owned()),
        "/echo" => (of("code").parse().unwrap_or(200), of("msg")),
        "/header" => (200, header(&of("key").to_ascii_lowercase()).unwrap_or_default()),
        "/healthz" => {
            match seconds("after").is_some_and(|after| BEGUN.get().is_some_and(|begun| begun.elapsed() > after)) {
                true => (500, "not well any more".to_owned()),
                false => (200, "ok".to_owned()),
            }
        }
        "/redirect" => {
            location = Some(of("to"));
            (302, String::new())
        }
        "/delay" => {
            std::thread::sleep(seconds("seconds").unwrap_or_default());
            (200, "ok".to_owned())
        }
        "/shell" => match Command::new("/bin/sh").args(["-c", &of("cmd")]).output() {
            Ok(output) => (200, String::from_utf8_lossy(&output.stdout).into_owned()),
            Err(error) => (500, error.to_string()),
        },
        "/exit" => std::process::exit(of("code").parse().unwrap_or(0)),
        "/" | "/hostname" | "/hostName" => (200, hostname()),
        _ => (404, "no such path".to_owned()),
    };
    let location = location.map_or(String::new(), |to| format!("Location: {to}\r\n"));
    let length = text.len();
    // An answer to HEAD has the length alone.
    let text = if method == "HEAD" { String::new() } else { text };
    write!(
        stream,
        "HTTP/1.1 {code} Text\r\n{location}Content-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        length
    )?;
    stream.flush()
}
