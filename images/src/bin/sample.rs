//! The sample application: says which pod answers, and asks others the same. Small, for it is in every image.
//!
//! `sample-server` answers on port 8080: `/` the host's name, `/healthz` ok. `get URL [TIMES]` prints what a server
//! answers, `resolve NAME` the addresses of a name, `echo` what it reads, `read FILE` what is in a file, and `write FILE
//! TEXT` puts that there, to stay.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

const PORT: u16 = 8080;
/// A client that is slower than this is let go.
const PATIENCE: Duration = Duration::from_secs(5);
const REQUEST_BYTES: u64 = 16 << 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        [] | ["sample-server"] => serve(),
        ["get", url] => get(url).map(|body| print!("{body}")),
        ["get", url, times] => get_often(url, times),
        ["resolve", name] => resolve(name),
        ["echo"] => std::io::copy(&mut std::io::stdin(), &mut std::io::stdout()).map(drop).map_err(Into::into),
        ["read", file] => std::fs::read_to_string(file).map(|text| print!("{text}")).map_err(Into::into),
        ["write", file, text] => write(file, text),
        _ => Err("usage: sample sample-server | get http://HOST[:PORT][/PATH] [TIMES] | resolve NAME | echo | \
                  read FILE | write FILE TEXT"
            .into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sample: {error}");
            ExitCode::FAILURE
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn write(path: &str, text: &str) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(text.as_bytes())?;
    Ok(file.sync_all()?)
}

fn serve() -> Result<()> {
    end_when_told()?;
    // Answers for both families, where the machine has both.
    let listener = TcpListener::bind(("::", PORT)).or_else(|_| TcpListener::bind(("0.0.0.0", PORT)))?;
    let name = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    println!("{name} listens on port {PORT}");
    for stream in listener.incoming().flatten() {
        let name = name.clone();
        thread::spawn(move || answer(stream, &name).inspect_err(|error| eprintln!("sample: {error}")).ok());
    }
    Ok(())
}

/// The first process of a container ignores the signal to end unless it asks for it.
fn end_when_told() -> Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    thread::spawn(move || {
        signals.wait().ok();
        std::process::exit(0);
    });
    Ok(())
}

fn answer(stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new((&stream).take(REQUEST_BYTES)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let (status, body) = match request.split(' ').nth(1) {
        Some("/") => ("200 OK", format!("{name}\n")),
        Some("/healthz") => ("200 OK", "ok\n".to_owned()),
        _ => ("404 Not Found", "not found\n".to_owned()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n", body.len());
    write!(&stream, "{head}Connection: close\r\n\r\n{body}")
}

fn get_often(url: &str, times: &str) -> Result<()> {
    for _ in 0..times.parse::<u32>()? {
        print!("{}", get(url)?);
    }
    Ok(())
}

fn resolve(name: &str) -> Result<()> {
    for address in (name, PORT).to_socket_addrs()? {
        println!("{}", address.ip());
    }
    Ok(())
}

fn get(url: &str) -> Result<String> {
    let rest = url.strip_prefix("http://").ok_or("only http:// is understood")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let target = if host.rsplit(']').next().is_some_and(|end| end.contains(':')) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let address = target.to_socket_addrs()?.next().ok_or_else(|| format!("{host} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no whole answer came")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "200" { Ok(body.to_owned()) } else { Err(format!("{url} answers {status}").into()) }
}
