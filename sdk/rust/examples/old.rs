// SPDX-License-Identifier: Apache-2.0
//! Programs as those for microsandbox 0.2 are, in all ways that they have: they run as they are, once MSB_SERVER_URL has the server's address.

use std::error::Error;

use microsandbox::{BaseSandbox, NodeSandbox, PythonSandbox, SandboxError, SandboxOptions, StartOptions};

type Boxed<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Hands 0.2's errors on as they are.
async fn said(sandbox: &PythonSandbox, code: &str) -> Boxed<String> {
    let execution = sandbox.run(code).await?;
    execution.output().await
}

/// Knows nothing but the trait, and runs on any thread.
async fn any(mut sandbox: Box<dyn BaseSandbox>) -> Boxed<String> {
    let execution = sandbox.run_or_start("print(6 * 7)").await?;
    sandbox.stop().await?;
    execution.output().await
}

struct Holder {
    sandbox: PythonSandbox,
}

/// What a program finds in the box.
fn kind(error: &(dyn Error + Send + Sync + 'static)) -> String {
    match error.downcast_ref::<SandboxError>() {
        Some(SandboxError::NotStarted) => format!("not started: {error}"),
        Some(SandboxError::RequestFailed(text)) => format!("failed: {}", text.contains("longer than 1 s")),
        Some(SandboxError::HttpError(text)) => format!("no connection: {}", text.contains("Connection refused")),
        Some(other) => format!("another one: {other:?}"),
        None => format!("a stranger: {error}"),
    }
}

async fn with_options() -> Result<(), Box<dyn Error>> {
    let mut sb = PythonSandbox::create(SandboxOptions::builder().name("old-options").build()).await?;
    let _ = sb.run(r#"name = "Python""#).await?;
    let exec = sb.run(r#"print(f"Hello {name}!")"#).await?;
    println!("{}", exec.output().await?);
    let listed = sb.command().run("ls", Some(vec!["/nonexistent"]), Some(10)).await?;
    println!("{} {} {}", listed.exit_code() != 0, listed.is_success(), listed.error().await?.contains("nonexistent"));
    println!("{}", sb.metrics().is_running().await?);
    let usage = sb.metrics().get().await?;
    println!("{} {}", usage.cpu_usage() >= 0.0, usage.memory_usage() > 0 && usage.disk_usage() > 0);
    sb.stop().await?;
    Ok(())
}

async fn with_a_name() -> Boxed<()> {
    let name = String::from("old-name");
    let mut holder = Holder { sandbox: PythonSandbox::create(&name).await? };
    println!("{}", kind(holder.sandbox.run("1").await.unwrap_err().as_ref()));
    let options = StartOptions { image: None, memory: 1024, cpus: 2.0, timeout: 180.0 };
    holder.sandbox.start(Some(options)).await?;
    println!(
        "{} {}",
        said(&holder.sandbox, "print([i**2 for i in range(4)])").await?,
        holder.sandbox.is_started().await
    );
    println!("{:?}", said(&holder.sandbox, "print('  kept  ')\nprint()").await?);
    let command = holder.sandbox.command().await?;
    println!("{}", kind(command.run("sleep", Some(vec!["10"]), Some(1)).await.unwrap_err().as_ref()));
    println!("{}", command.run("true", None, None).await?.success());
    let metrics = holder.sandbox.metrics().await?;
    println!("{} {:?}", metrics.all().await?["name"], metrics.cpu().await?.is_some());
    holder.sandbox.stop().await?;
    println!("{}", holder.sandbox.run_or_start("print('again')").await?.output().await?);
    holder.sandbox.stop().await?;

    let mut node =
        NodeSandbox::create_with_options(SandboxOptions::builder().namespace("default").name("old-node").build())
            .await?;
    node.start(Some(StartOptions { memory: 256, ..Default::default() })).await?;
    let execution = node.run("console.log([1, 2, 3].length); console.error('bad')").await?;
    println!("{} {} {}", execution.output().await?, execution.error().await?, execution.has_error());
    node.stop().await?;
    Ok(())
}

async fn otherwise() -> Boxed<()> {
    println!("{}", tokio::spawn(any(Box::new(PythonSandbox::create("old-any").await?))).await??);
    let nowhere = SandboxOptions::builder().server_url("http://127.0.0.1:1").build();
    let mut unreachable = PythonSandbox::create_with_options(nowhere).await?;
    println!("{}", kind(unreachable.start(None).await.unwrap_err().as_ref()));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    with_options().await?;
    with_a_name().await.map_err(|error| error.to_string())?;
    otherwise().await.map_err(|error| error.to_string())?;
    Ok(())
}
