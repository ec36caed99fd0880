// SPDX-License-Identifier: Apache-2.0
//! What becomes of sandboxes that are dropped: `dropped error` ends with an error in the middle of things, and prints the name of
//! the sandbox that it had; `dropped runtime` drops one where there is no runtime.

use microsandbox::{Error, Sandbox};

async fn fails() -> Result<(), Error> {
    let sandbox = Sandbox::create("base").await?;
    println!("{}", sandbox.name());
    sandbox.files().read("/nothing").await?;
    Ok(())
}

fn main() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if std::env::args().nth(1).as_deref() == Some("runtime") {
        let sandbox = runtime.block_on(Sandbox::create("base"))?;
        println!("{}", sandbox.name());
        drop(runtime);
        drop(sandbox);
        return Ok(());
    }
    runtime.block_on(fails())
}
