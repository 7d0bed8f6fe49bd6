//! Many watches of the same pods: what they cost while nothing happens, and what their events cost.

use client::ResponseBody;
use futures::future::try_join_all;
use futures::try_join;
use http_body_util::BodyExt as _;

use crate::figures::{Figure, Form, Found};
use crate::options::Options;
use crate::subject::Subject;
use crate::wire::{many, object, open, write};
use crate::work::{NAMESPACE, merging};
use crate::{Failure, Result};

/// Watches on one connection.
const STREAMS: usize = 50;
/// Changes of a round, one after the other.
const CHANGES: usize = 10;
/// Bytes of a length before an event.
const HEAD_BYTES: usize = 4;
/// Bytes that are told of what came last.
const SHOWN: usize = 300;
/// Changes of a round, all at once. Upstream ends watches that fall behind by more than some 40.
const BURST: usize = 25;

/// Kilobytes that each of them takes on a server that has done nothing else: what others have let go would hide it.
#[allow(clippy::cast_precision_loss, reason = "nobody watches that often")]
pub(crate) async fn idle(options: &Options, subject: &Subject) -> Result<Vec<Found>> {
    // What the first one makes counts for none.
    let _first = Watches::open(subject, Form::Json, 1).await?;
    subject.settled().await?;
    let before = subject.own()?;
    let _watches = Watches::open(subject, Form::Json, options.watchers).await?;
    subject.settled().await?;
    Ok(vec![Found::new(Figure::IdleWatcher, (subject.own()? - before) / options.watchers as f64)])
}

pub(crate) async fn events(options: &Options, subject: &Subject, pods: usize) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for form in Form::WATCHED {
        if [Figure::Events(form), Figure::Bursts(form)].into_iter().any(|figure| options.wants(figure)) {
            found.extend(events_in(form, options, subject, pods).await?);
        }
    }
    found.retain(|found| options.wants(found.figure));
    Ok(found)
}

async fn events_in(form: Form, options: &Options, subject: &Subject, pods: usize) -> Result<Vec<Found>> {
    let (client, seconds, count) = (&subject.client, options.seconds, options.watchers);
    let mut watches = Watches::open(subject, form, count).await?;
    subject.settled().await?;
    let mut found = Vec::new();
    let mut round = 0;
    let events = subject.cost(seconds, async || {
        for _ in 0..CHANGES {
            round += 1;
            let change = write(client, merging(0, &format!("event-{form:?}-{round}")));
            try_join!(change, watches.see(1))?;
        }
        Ok(CHANGES * count)
    });
    found.push(Found::rate(Figure::Events(form), events.await?));
    // Each pod once: those that would change the same one would wait for one another.
    let burst = BURST.min(pods);
    let bursts = subject.cost(seconds, async || {
        round += 1;
        let changes = many(0..burst, async |n| write(client, merging(n, &format!("burst-{form:?}-{round}"))).await);
        try_join!(changes, watches.see(burst))?;
        Ok(burst * count)
    });
    found.push(Found::rate(Figure::Bursts(form), bursts.await?));
    Ok(found)
}

struct Watches(Vec<Watch>);

struct Watch {
    body: ResponseBody,
    events: Counter,
}

/// Tells how many events end in what came.
enum Counter {
    /// Each is a line.
    Lines,
    /// Each has its length before it, in four bytes.
    Lengths { head: Vec<u8>, left: usize },
}

impl Counter {
    fn of(form: Form) -> Self {
        match form {
            Form::Json | Form::Table => Self::Lines,
            Form::Protobuf => Self::Lengths { head: Vec::new(), left: 0 },
        }
    }

    fn count(&mut self, mut data: &[u8]) -> usize {
        let (head, left) = match self {
            Self::Lines => return data.iter().filter(|&&byte| byte == b'\n').count(),
            Self::Lengths { head, left } => (head, left),
        };
        let mut ended = 0;
        while !data.is_empty() {
            if *left == 0 {
                let (more, rest) = data.split_at(data.len().min(HEAD_BYTES - head.len()));
                head.extend_from_slice(more);
                data = rest;
                if let Ok(length) = <[u8; HEAD_BYTES]>::try_from(head.as_slice()) {
                    *left = u32::from_be_bytes(length) as usize;
                    head.clear();
                }
            } else {
                let here = data.len().min(*left);
                data = &data[here..];
                *left -= here;
                ended += usize::from(*left == 0);
            }
        }
        ended
    }
}

impl Watches {
    async fn open(subject: &Subject, form: Form, count: usize) -> Result<Self> {
        let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let newest = object(&subject.client, &format!("{pods}?limit=1")).await?;
        let since = newest["metadata"]["resourceVersion"].as_str().ok_or("a list without a version")?;
        let path = format!("{pods}?watch=1&resourceVersion={since}");
        let mut watches = Vec::with_capacity(count);
        while watches.len() < count {
            // A connection carries only so many streams at a time.
            let client = subject.connect();
            for _ in 0..STREAMS.min(count - watches.len()) {
                let body = open(&client, &path, form.accept()).await?;
                watches.push(Watch { body, events: Counter::of(form) });
            }
        }
        Ok(Self(watches))
    }

    /// Reads all of them at once, each until it told as many events: one that nobody reads would keep the others of its
    /// connection waiting.
    async fn see(&mut self, events: usize) -> Result<()> {
        try_join_all(self.0.iter_mut().map(|watch| watch.see(events))).await.map(drop)
    }
}

impl Watch {
    async fn see(&mut self, events: usize) -> Result<()> {
        let (mut seen, mut last) = (0, String::new());
        while seen < events {
            let Some(frame) = self.body.frame().await else {
                return Err(
                    format!("a watch ended after {seen} of {events} events, the last of which was {last}").into()
                );
            };
            let data = frame?.into_data().map_err(|_| Failure::from("a watch ended with trailers"))?;
            seen += self.events.count(&data);
            last = String::from_utf8_lossy(&data[data.len().saturating_sub(SHOWN)..]).into_owned();
        }
        if seen == events { Ok(()) } else { Err(format!("{seen} events in place of {events}, at last {last}").into()) }
    }
}
