// SPDX-License-Identifier: Apache-2.0
//! Pictures and films of a vendor that there is only in the tests of the host. Its API is what long work looks like
//! everywhere: `POST /tasks` begins it, `GET /tasks/ID` says how it is doing, `POST /tasks/ID/cancel` ends it.

use penstock_sdk::dialects::codec::Operation;
use penstock_sdk::dialects::task::{IMAGE, IMAGE_FAULT, Task, VIDEO};
use penstock_sdk::prelude::{
    Adapter, Answer, Blob, Body, Call, Config, Event, Exchange, Fault, FaultClass, Finish, Frame, Issue, Pairs, Plan,
    Upstream, Usage, Wants,
};
use serde_json::{Value, json};

/// How to ask.
#[derive(Debug, Config)]
pub struct Options {
    /// Pause before each question how the work is doing, in milliseconds.
    #[config(default = 20, min = 0, max = 60000)]
    poll_ms: u32,
}

/// The adapter.
#[derive(Debug)]
pub struct Painter(Options);

/// One piece of work.
#[derive(Debug)]
pub struct Painting {
    id: String,
    poll_ms: u32,
}

impl Adapter for Painter {
    type Config = Options;
    type Exchange = Painting;

    const OPERATIONS: &'static [&'static str] = &["images", "image_edits", "videos"];
    const SECRETS: &'static [&'static str] = &["key"];

    fn new(options: Options) -> Result<Self, Vec<Issue>> {
        Ok(Self(options))
    }

    fn wants(&self) -> Wants {
        Wants::nothing().headers(["x-studio", "authorization"])
    }

    fn open(&self, call: &Call, headers: &Pairs, body: &[u8], _: &[Blob]) -> Result<(Painting, Plan), Fault> {
        let wrong = |what: String| Fault::new(FaultClass::InvalidRequest, what);
        let operation = Operation::from_name(&call.operation).ok_or_else(|| wrong(call.operation.clone()))?;
        let task = Task::from_json(operation, body).map_err(wrong)?;
        let (kind, prompt, count) = match task {
            Task::Image(image) => ("picture", image.prompt, image.count),
            Task::Video(video) => ("film", video.prompt, video.seconds),
            _ => return Err(Fault::new(FaultClass::Unsupported, "pictures and films only")),
        };
        let body = json!({ "kind": kind, "model": call.model, "prompt": prompt, "count": count });
        let studio = headers.get("x-studio").unwrap_or("none");
        let submit =
            Upstream::post("/tasks").header("x-studio", studio).secret_header("authorization", "Bearer ", "key");
        let painting = Painting { id: String::new(), poll_ms: self.0.poll_ms };
        Ok((painting, Plan::Ask(submit.body(Body::Bytes(body.to_string().into_bytes())))))
    }

    fn reject(&self, status: u16, _: &Pairs, body: &[u8]) -> Fault {
        let class = match status {
            404 => FaultClass::ModelNotFound,
            429 => FaultClass::RateLimit,
            400..=499 => FaultClass::InvalidRequest,
            _ => FaultClass::Overloaded,
        };
        Fault::new(class, String::from_utf8_lossy(body).into_owned())
    }
}

impl Exchange for Painting {
    fn frame(&mut self, _: &Frame<'_>, _: &mut Vec<Event>) -> Result<(), Fault> {
        Err(Fault::new(FaultClass::VendorBug, "this vendor does not stream"))
    }

    fn finish(&mut self, answer: &Answer<'_>, events: &mut Vec<Event>) -> Result<Option<Upstream>, Fault> {
        let told: Value = serde_json::from_slice(answer.body)
            .map_err(|error| Fault::new(FaultClass::VendorBug, error.to_string()))?;
        if let Some(id) = told["id"].as_str() {
            id.clone_into(&mut self.id);
        }
        match told["status"].as_str() {
            Some("SUCCEEDED") => {
                self.done(&told, events);
                Ok(None)
            }
            Some("FAILED") => {
                let message = told["message"].as_str().unwrap_or("it did not work out");
                let mut fault = Fault::new(FaultClass::ContentFilter, message);
                fault.code = told["code"].as_str().map(str::to_owned);
                Err(fault)
            }
            _ => Ok(Some(self.authorised(Upstream::get(format!("/tasks/{}", self.id))).after_ms(self.poll_ms))),
        }
    }

    fn cancel(&self) -> Option<Upstream> {
        (!self.id.is_empty()).then(|| self.authorised(Upstream::post(format!("/tasks/{}/cancel", self.id))))
    }
}

impl Painting {
    fn authorised(&self, upstream: Upstream) -> Upstream {
        upstream.secret_header("authorization", "Bearer ", "key")
    }

    fn done(&self, told: &Value, events: &mut Vec<Event>) {
        events.push(Event::Start { id: self.id.clone(), model: String::new() });
        let mut count = 0;
        for picture in told["pictures"].as_array().into_iter().flatten() {
            let name = if picture["url"].is_string() { IMAGE } else { IMAGE_FAULT };
            count += u64::from(name == IMAGE);
            events.push(Event::Other { name: name.to_owned(), json: picture.to_string() });
        }
        if told["film"].is_object() {
            events.push(Event::Other { name: VIDEO.to_owned(), json: told["film"].to_string() });
        }
        events.push(Event::Usage(Usage { more: vec![("image-count".to_owned(), count)], ..Usage::default() }));
        events.push(Event::Finish(Finish { reason: "stop".to_owned(), sequence: None }));
    }
}

penstock_sdk::adapter!(Painter);
