// SPDX-License-Identifier: Apache-2.0
//! A program as those for microsandbox 0.2 are, in both ways that it has: it runs as it is, once MSB_SERVER_URL has the server's address.

use std::error::Error;

use microsandbox::{BaseSandbox, NodeSandbox, PythonSandbox, SandboxError, SandboxOptions, StartOptions};

async fn greet<S: BaseSandbox>(sandbox: &S, code: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
    let execution = sandbox.run(code).await?;
    Ok(execution.output().await?)
}

async fn with_options() -> Result<(), Box<dyn Error>> {
    let mut sb = PythonSandbox::create(SandboxOptions::builder().name("old-options").build()).await?;
    let _ = sb.run(r#"name = "Python""#).await?;
    let exec = sb.run(r#"print(f"Hello {name}!")"#).await?;
    println!("{}", exec.output().await?);
    let listed = sb.command().run("ls", Some(vec!["/nonexistent"]), Some(10)).await?;
    println!("{} {} {}", listed.exit_code() != 0, listed.is_success(), listed.error().await?.contains("nonexistent"));
    println!("{}", sb.metrics().is_running().await?);
    sb.stop().await?;
    Ok(())
}

async fn with_a_name() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut sandbox = PythonSandbox::create("old-name").await?;
    match sandbox.run("1").await {
        Err(error) if matches!(error.downcast_ref::<SandboxError>(), Some(SandboxError::NotStarted)) => {
            println!("{error}")
        }
        other => println!("{other:?}"),
    }
    let options = StartOptions { memory: 1024, cpus: 2.0, ..Default::default() };
    sandbox.start(Some(options)).await?;
    println!("{} {}", greet(&sandbox, "print([i**2 for i in range(4)])").await?, sandbox.is_started().await);
    let command = sandbox.command().await?;
    if let Err(error) = command.run("sleep", Some(vec!["10"]), Some(1)).await {
        println!("{}", error.to_string().starts_with("Failed to execute command"));
    }
    let metrics = sandbox.metrics().await?;
    println!("{} {:?}", metrics.all().await?["name"], metrics.cpu().await?.is_some());
    sandbox.stop().await?;

    let mut node =
        NodeSandbox::create_with_options(SandboxOptions::builder().namespace("default").name("old-node").build())
            .await?;
    node.start(None).await?;
    let execution = node.run("console.log([1, 2, 3].length); console.error('bad')").await?;
    println!("{} {} {}", execution.output().await?, execution.error().await?, execution.has_error());
    node.stop().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    with_options().await?;
    with_a_name().await.map_err(|error| error.to_string())?;
    Ok(())
}
