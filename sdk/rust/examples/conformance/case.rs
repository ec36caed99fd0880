// SPDX-License-Identifier: Apache-2.0
//! The steps of a case.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, select, Either};
use serde_json::{json, Value};

use crate::bed::{Bed, Thing};
use crate::matcher::{check, substitute};
use crate::operations::Operation;
use crate::results::unique;

pub type Variables = HashMap<String, Thing>;
type Done<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;
/// What an operation gives: its result, and what `as` is to hold; or the error as the suite describes it.
pub type Outcome = Result<(Value, Option<Thing>), Value>;

pub struct Case<'a> {
    bed: &'a Bed,
}

fn filled(value: &Value, variables: &Variables) -> Value {
    substitute(value, &|name| match variables.get(name) {
        Some(Thing::Value(value)) => Some(value.clone()),
        _ => None,
    })
}

fn steps_of(step: &Value) -> &[Value] {
    step["steps"].as_array().map_or(&[], Vec::as_slice)
}

impl<'a> Case<'a> {
    pub fn of(bed: &'a Bed) -> Self {
        Self { bed }
    }

    pub async fn run(&self, steps: &Value, mut variables: Variables) -> Result<(), String> {
        // As long as this is bound, nobody else listens there.
        let place = tokio::net::TcpSocket::new_v4().unwrap();
        place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let name = format!("c{}", unique());
        let known = [
            ("nowhere", format!("http://{}", place.local_addr().unwrap())),
            ("dir", format!("{}/{name}", self.bed.directory)),
            ("unique", name),
            ("url", self.bed.url.clone()),
            ("key", self.bed.key.clone()),
        ];
        variables.extend(known.map(|(name, value)| (name.to_string(), Thing::Value(value.into()))));
        self.steps(steps.as_array().map_or(&[], Vec::as_slice), &mut variables).await
    }

    fn steps<'b>(&'b self, steps: &'b [Value], variables: &'b mut Variables) -> Done<'b> {
        Box::pin(async move {
            for step in steps {
                self.step(step, variables).await?;
            }
            Ok(())
        })
    }

    async fn step(&self, step: &Value, variables: &mut Variables) -> Result<(), String> {
        if let Some(entered) = step.get("within") {
            self.scope(entered, steps_of(step), variables).await
        } else if let Some(lists) = step.get("together") {
            let lists = lists.as_array().into_iter().flatten();
            let all = lists.map(|steps| {
                let mut variables = variables.clone();
                async move { self.steps(steps.as_array().unwrap(), &mut variables).await }
            });
            join_all(all).await.into_iter().collect()
        } else if let Some(times) = step["repeat"].as_u64() {
            for _ in 0..times {
                self.steps(steps_of(step), variables).await?;
            }
            Ok(())
        } else if let Some(tried) = step.get("until") {
            self.until(tried, variables, step["seconds"].as_f64().unwrap_or(30.0)).await
        } else if let Some(begun) = step.get("abandon") {
            let mut others = variables.clone();
            let operation = Box::pin(self.operation(begun, variables, false));
            let when = Box::pin(self.until(&step["when"], &mut others, 30.0));
            let first = select(operation, when).await;
            match first {
                Either::Left((outcome, _)) => {
                    Err(format!("what is to be abandoned has ended: {:?}", outcome.map(|done| done.0)))
                }
                Either::Right((done, _)) => done,
            }
        } else {
            let outcome = self.operation(step, variables, false).await;
            self.judge(step, outcome, variables).map(drop)
        }
    }

    async fn until(&self, step: &Value, variables: &mut Variables, seconds: f64) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs_f64(seconds);
        loop {
            let list = std::slice::from_ref(step);
            match self.steps(list, variables).await {
                Err(why) if Instant::now() > deadline => return Err(why),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Enters what a step gives, and leaves it: by drop, or of 0.2's surface, which has no scopes, by stop.
    async fn scope(&self, entered: &Value, steps: &[Value], variables: &mut Variables) -> Result<(), String> {
        let outcome = self.operation(entered, variables, true).await;
        let thing = match self.judge(entered, outcome, variables)? {
            Some(thing) => thing,
            None => return Ok(()),
        };
        let done = self.steps(steps, variables).await;
        if let Some(name) = entered["as"].as_str() {
            variables.remove(name);
        }
        let left = match thing {
            Thing::Old(old) => old.lock().await.stop().await.map_err(|error| error.to_string()),
            Thing::Sandbox(sandbox) => {
                assert_eq!(Arc::strong_count(&sandbox), 1, "nobody else has it");
                drop(sandbox);
                microsandbox::settled().await;
                Ok(())
            }
            _ => Ok(()),
        };
        done.and(left)
    }

    /// Holds what an operation gives against what its step expects; gives what it made.
    fn judge(&self, step: &Value, outcome: Outcome, variables: &mut Variables) -> Result<Option<Thing>, String> {
        let with = step.get("with").unwrap_or(&Value::Null).to_string();
        let place =
            format!("{} {}", step["do"].as_str().unwrap_or_default(), with.chars().take(200).collect::<String>());
        let (result, thing) = match (outcome, step.get("error")) {
            (Err(error), None) => return Err(format!("{place} failed: {error}")),
            (Err(error), Some(expected)) => {
                check(&error, &filled(expected, variables), &format!("the error of {place}"))?;
                return Ok(None);
            }
            (Ok((result, _)), Some(_)) => return Err(format!("{place} was to fail, and gave {result}")),
            (Ok(done), None) => done,
        };
        if let Some(expected) = step.get("expect") {
            check(&result, &filled(expected, variables), &format!("the result of {place}"))?;
        }
        if let (Some(name), Some(thing)) = (step["as"].as_str(), &thing) {
            variables.insert(name.into(), thing.clone());
        }
        for (name, pointer) in step["save"].as_object().into_iter().flatten() {
            let pointer = pointer.as_str().unwrap_or_default();
            let part = result.pointer(pointer).ok_or_else(|| format!("{place} has no '{pointer}': {result}"))?;
            variables.insert(name.clone(), Thing::Value(part.clone()));
        }
        Ok(thing)
    }

    async fn operation(&self, step: &Value, variables: &mut Variables, entered: bool) -> Outcome {
        let mut settings = match step.get("settings") {
            Some(settings) => filled(settings, variables),
            None => self.bed.settings(),
        };
        for name in ["MSB_SERVER_URL", "MSB_API_KEY"] {
            match settings["environment"][name].as_str() {
                Some(value) => std::env::set_var(name, value),
                None => std::env::remove_var(name),
            }
        }
        if let Some(object) = settings.as_object_mut() {
            object.remove("environment");
        }
        let client = step["client"].as_str().map(|name| match &variables[name] {
            Thing::Client(client) => client.clone(),
            _ => panic!("'{name}' is no client"),
        });
        let name = step["do"].as_str().expect("a step does something");
        let on = step["on"].as_str();
        if name == "close" {
            // What is closed is gone, for all that has it.
            variables.remove(on.unwrap_or_default());
            self.bed.release().await;
            return Ok((Value::Null, None));
        }
        let operation = Operation {
            bed: self.bed,
            on: on.map(|name| variables[name].clone()),
            arguments: filled(step.get("with").unwrap_or(&json!({})), variables),
            settings,
            client,
            entered,
        };
        operation.run(name).await
    }
}
