// SPDX-License-Identifier: Apache-2.0
//! What is done when something is dropped: `drop` cannot wait as asynchronous code does, and the runtime may be about to end.
//! So a thread of this crate's own, with a runtime of its own, sends these requests.

use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::call::Call;
use crate::client::Client;
use crate::settings::Settings;

enum Job {
    Send(Box<Settings>, Call, SyncSender<()>),
    Settle(oneshot::Sender<()>),
}

/// To the thread, once there is one.
static JOBS: Mutex<Option<mpsc::UnboundedSender<Job>>> = Mutex::new(None);

fn hand_over(mut job: Job) {
    let mut jobs = match JOBS.lock() {
        Ok(jobs) => jobs,
        Err(poisoned) => poisoned.into_inner(),
    };
    // Twice: a thread that found no room for its runtime has ended, and there may be room for the next.
    for _ in 0..2 {
        if jobs.is_none() {
            let (sender, receiver) = mpsc::unbounded_channel();
            let started = thread::Builder::new().name("microsandbox-drop".into()).spawn(|| work(receiver));
            *jobs = started.ok().map(|_| sender);
        }
        match jobs.as_ref().map(|jobs| jobs.send(job)) {
            Some(Err(mpsc::error::SendError(back))) => {
                job = back;
                *jobs = None;
            }
            _ => return, // whoever waits for it notices when it is gone
        }
    }
}

fn work(mut jobs: mpsc::UnboundedReceiver<Job>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return, // no descriptors are left, say: nothing can be sent then
    };
    runtime.block_on(async {
        let mut running: Vec<JoinHandle<()>> = Vec::new();
        while let Some(job) = jobs.recv().await {
            running.retain(|one| !one.is_finished());
            match job {
                Job::Send(settings, call, done) => running.push(tokio::spawn(async move {
                    if let Ok(client) = Client::of(*settings, None, None) {
                        let _ = client.send(call).await; // nobody is there to be told
                    }
                    let _ = done.send(());
                })),
                Job::Settle(settled) => {
                    let before = std::mem::take(&mut running);
                    running.push(tokio::spawn(async move {
                        for one in before {
                            let _ = one.await;
                        }
                        let _ = settled.send(());
                    }));
                }
            }
        }
    });
}

/// Sends a request in the background, and waits for its answer as long as said at most: a program that ends right after has sent it.
pub(crate) fn send(client: &Client, call: Call, wait: Duration) {
    let (done, is_done) = sync_channel(1);
    hand_over(Job::Send(Box::new(client.settings().clone()), call, done));
    if !wait.is_zero() {
        let _ = is_done.recv_timeout(wait); // it goes on when that was not enough
    }
}

/// Waits until all sandboxes that were dropped so far have been stopped.
pub async fn settled() {
    let (settled, is_settled) = oneshot::channel();
    hand_over(Job::Settle(settled));
    let _ = is_settled.await; // an error: there is no thread, and nothing to wait for
}
