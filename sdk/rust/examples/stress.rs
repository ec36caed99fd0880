// SPDX-License-Identifier: Apache-2.0
//! Very many calls, calls that are abandoned at any moment, servers that restart: `stress calls|cancel|create|follow|cut|overhead`.

use std::error::Error;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use microsandbox::{Client, ErrorKind, ProcessOutput, Sandbox};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

type Done = Result<(), Box<dyn Error>>;

/// Connections, by what this process has open.
fn sockets() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

async fn none_is_open(before: usize) {
    while sockets() > before {
        sleep(Duration::from_millis(10)).await;
    }
}

/// Thousands of calls of a sandbox "box" by twenty tasks at a time.
async fn calls() -> Done {
    let before = sockets();
    let sandbox = Sandbox::connect("box").await?;
    let some = || async {
        for _ in 0..150 {
            sandbox.command("true").run().await?;
        }
        Ok(())
    };
    join_all((0..20).map(|_| some())).await.into_iter().collect::<microsandbox::Result<()>>()?;
    drop(sandbox);
    none_is_open(before).await;
    Ok(())
}

/// Commands, streams and files that are abandoned at any moment; the sandbox is as good as before.
async fn cancel() -> Done {
    let before = sockets();
    let sandbox = Sandbox::create("base").await?;
    for tick in 0..60 {
        let moment = Duration::from_micros(tick * 250);
        let _ = timeout(moment, sandbox.command("sleep").arg("1000").run()).await;
        let _ = timeout(moment, sandbox.files().list("/")).await;
        let mut stream = sandbox.command("sh").args(["-c", "echo ready; exec sleep 1000"]).stream();
        let _ = timeout(moment, stream.next()).await;
    }
    // What was abandoned is killed, and forgotten.
    while !sandbox.processes().await?.is_empty() {
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(sandbox.command("echo").arg("again").run().await?.stdout, "again\n");
    sandbox.stop().await?;
    drop(sandbox);
    none_is_open(before).await;
    Ok(())
}

/// Creations that are abandoned at any moment.
async fn create() -> Done {
    for tick in 0..12 {
        if let Ok(made) = timeout(Duration::from_millis(tick * 20), Sandbox::create("base")).await {
            made?.remove().await?;
        }
        microsandbox::settled().await;
    }
    Ok(())
}

/// Prints what a process writes that ends when there is a file: whoever tests restarts the server before.
async fn follow(gate: &str) -> Done {
    let sandbox = Sandbox::builder("base").name("kept").create().await?;
    let script = format!("echo before; while [ ! -e {gate} ]; do sleep 0.05; done; echo after");
    let process = sandbox.command("sh").args(["-c", &script]).start().await?;
    let mut stream = process.output();
    while let Some(output) = stream.next().await {
        if let ProcessOutput::Output(output) = output? {
            print!("{}", output.text());
            std::io::Write::flush(&mut std::io::stdout())?;
        }
    }
    assert_eq!(stream.exit().map(|exit| exit.exit_code), Some(0));
    assert_eq!((stream.offsets().stdout, stream.offsets().stderr), (13, 0));
    sandbox.remove().await?;
    Ok(())
}

/// A command whose server is killed, and what there is then; the next one is awaited.
async fn cut() -> Done {
    let sandbox = Sandbox::builder("base").name("cut").create().await?;
    let mut stream = sandbox.command("sh").args(["-c", "echo ready; sleep 1000"]).stream();
    print!("{}", stream.next().await.ok_or("nothing came")??.text());
    std::io::Write::flush(&mut std::io::stdout())?;
    match stream.next().await {
        Some(Err(error)) if error.kind() == ErrorKind::Broken => println!("{}", error.code()),
        other => panic!("{other:?}"),
    }
    while let Err(error) = sandbox.refresh().await {
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
    }
    print!("{}", sandbox.command("echo").arg("again").run().await?.stdout);
    sandbox.remove().await?;
    Ok(())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Prints what a call takes by this crate, and by bytes on a connection.
async fn overhead() -> Done {
    let client = Client::new()?;
    let url = std::env::var("MSB_SERVER_URL")?;
    let host = url.trim_start_matches("http://");
    let mut plain = TcpStream::connect(host).await?;
    plain.set_nodelay(true)?;
    let request = format!("GET /v1/health HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..500 {
        let begin = Instant::now();
        client.health().await?;
        ours.push(begin.elapsed());
        let begin = Instant::now();
        plain.write_all(request.as_bytes()).await?;
        let mut came = 0;
        while !buffer[..came].ends_with(b"}") {
            came += plain.read(&mut buffer[came..]).await?;
        }
        bare.push(begin.elapsed());
    }
    println!("{:.3} ms by the SDK, {:.3} ms bare", median(ours), median(bare));
    Ok(())
}

#[tokio::main]
async fn main() -> Done {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1).map(String::as_str) {
        Some("calls") => calls().await,
        Some("cancel") => cancel().await,
        Some("create") => create().await,
        Some("follow") => follow(&words[2]).await,
        Some("cut") => cut().await,
        Some("overhead") => overhead().await,
        _ => Err("stress calls|cancel|create|follow|cut|overhead".into()),
    }
}
