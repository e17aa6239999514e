// SPDX-License-Identifier: Apache-2.0
//! Both ends of a measurement of streams, for `cargo xtask bench --streams`.
//!
//! ```text
//! stream-probe source PORT BYTES         sends so many zeros to whoever connects
//! stream-probe relay PORT TARGET         the bare way of a forwarded connection: copies, each way in a thread
//! stream-probe pipe PORT COMMAND...       the bare way of an exec: copies what a command prints
//! stream-probe direct PORT               reads to the end from a port
//! stream-probe forward URL PORT          the same through a forwarded connection, over SPDY
//! stream-probe exec URL                  reads the output of an exec, over SPDY
//! ```
//! Those that read print `BYTES SECONDS`; those that serve do until they are killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a measuring program")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use hull_stream_client::forward::{PROTOCOL, pair};
use hull_stream_client::spdy;

const BUFFER: usize = 32 << 10;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["source", port, bytes] => source(number(port), bytes.parse().expect("a number of bytes")),
        ["relay", port, target] => relay(number(port), number(target)),
        ["pipe", port, command, words @ ..] => pipe(number(port), command, words),
        ["direct", port] => direct(number(port)),
        ["forward", url, port] => on_runtime(forward(url, number(port))),
        ["exec", url] => on_runtime(exec(url)),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

fn number(text: &str) -> u16 {
    text.parse().expect("a port")
}

fn on_runtime(work: impl Future<Output = (u64, f64)>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (bytes, seconds) = runtime.block_on(work);
    println!("{bytes} {seconds}");
}

/// Serves each connection in a thread.
fn serve(port: u16, serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + Copy + 'static) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("listen");
    println!("listening");
    for stream in listener.incoming() {
        let stream = stream.expect("accept");
        std::thread::spawn(move || serve(stream));
    }
}

fn source(port: u16, bytes: u64) {
    serve(port, move |mut stream| {
        let (zeros, mut left) = (vec![0; BUFFER], bytes);
        while left > 0 {
            let part = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            stream.write_all(&zeros[..part])?;
            left -= part as u64;
        }
        stream.shutdown(Shutdown::Write)?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    });
}

/// As socat does it: one buffer, one read, one write.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}

fn relay(port: u16, target: u16) {
    serve(port, move |mut client| {
        let mut target = TcpStream::connect((Ipv4Addr::LOCALHOST, target))?;
        let (mut client_in, mut target_out) = (client.try_clone()?, target.try_clone()?);
        let up = std::thread::spawn(move || {
            copy(&mut client_in, &mut target_out)?;
            target_out.shutdown(Shutdown::Write)
        });
        copy(&mut target, &mut client)?;
        client.shutdown(Shutdown::Write)?;
        up.join().unwrap()
    });
}

fn pipe(port: u16, command: &str, words: &[&str]) {
    let line: Vec<String> = std::iter::once(&command).chain(words).map(|word| (*word).to_owned()).collect();
    let line: &'static [String] = line.leak();
    serve(port, move |mut client| {
        let mut child =
            Command::new(&line[0]).args(&line[1..]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        copy(&mut child.stdout.take().expect("a pipe"), &mut client)?;
        child.wait()?;
        client.shutdown(Shutdown::Write)
    });
}

fn direct(port: u16) {
    let start = Instant::now();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect");
    let (mut buffer, mut bytes) = (vec![0; BUFFER], 0);
    loop {
        match stream.read(&mut buffer).expect("read") {
            0 => break,
            count => bytes += count as u64,
        }
    }
    println!("{bytes} {}", start.elapsed().as_secs_f64());
}

async fn forward(url: &str, port: u16) -> (u64, f64) {
    let (mut reader, mut writer) = spdy::dial(url, PROTOCOL).await;
    let start = Instant::now();
    let (_, data) = pair(&mut writer, port, 0).await;
    let bytes = reader.count(data).await.expect("read");
    (bytes, start.elapsed().as_secs_f64())
}

async fn exec(url: &str) -> (u64, f64) {
    let start = Instant::now();
    let mut session = spdy::exec(url, "v4.channel.k8s.io", "error stdout").await;
    let stdout = session.id("stdout");
    let bytes = session.reader.count(stdout).await.expect("read");
    (bytes, start.elapsed().as_secs_f64())
}
