//! How starts of a machine went: what took how long, and what everything else waited for.

use crate::table::{Row, span, table};
use crate::{Boot, Boots, MachineStatus, Span};

impl Row for Span {
    const HEAD: &'static [&'static str] = &["WHAT", "KIND", "START", "END", "TOOK", "CRITICAL"];

    fn cells(&self) -> Vec<String> {
        let end = self.end_seconds.map(|end| format!("{end:.2}"));
        let took = self.end_seconds.map(|end| format!("{:.2}", end - self.start_seconds));
        let (start, not) = (format!("{:.2}", self.start_seconds), "-".to_owned());
        let critical = crate::system::yes(self.is_critical);
        vec![self.name.clone(), self.kind.clone(), start, end.unwrap_or(not.clone()), took.unwrap_or(not), critical]
    }
}

impl Boot {
    /// Takes over what a status tells of this start: all that was done, and since when everything is ready, if it is.
    /// `base` is when the start began, in seconds since the kernel did.
    pub fn follow(&mut self, status: &MachineStatus, base: f64) {
        let span = |name: &str, kind: &str, start: f64, end: Option<f64>| Span {
            name: name.to_owned(),
            kind: kind.to_owned(),
            start_seconds: start - base,
            end_seconds: end.map(|end| end - base),
            ..Span::default()
        };
        let kernel = status.phases.first().map(|first| span("kernel", "kernel", 0.0, Some(first.started_seconds)));
        let phases = status.phases.iter().map(|phase| {
            span(&phase.name, "phase", phase.started_seconds, Some(phase.started_seconds + phase.took_seconds))
        });
        let services = status.services.iter().filter_map(|service| {
            let service_span = span(&service.name, "service", service.started_seconds?, service.ready_seconds);
            Some(Span { after: service.after.clone(), ..service_span })
        });
        self.spans = kernel.filter(|_| base == 0.0).into_iter().chain(phases).chain(services).collect();
        self.base_seconds = base;
        if status.ready {
            self.ready_seconds = Some(status.uptime_seconds - base);
            self.mark_critical();
        }
    }

    /// How it ended, in words.
    fn end(&self) -> String {
        let ended = self.ended.clone().unwrap_or_default();
        if self.left_behind.is_empty() {
            return ended;
        }
        format!("{ended}; left behind: {}", self.left_behind.join(", "))
    }

    /// Marks what everything else waited for: from the end back, always the one that was done last.
    fn mark_critical(&mut self) {
        let mut next = last(&self.spans, |span| span.kind == "service");
        while let Some(index) = next {
            self.spans[index].is_critical = true;
            let after = self.spans[index].after.clone();
            next = last(&self.spans, |span| after.contains(&span.name) && !span.is_critical);
        }
        // What came before the services was done one after the other.
        for span in self.spans.iter_mut().filter(|span| span.kind != "service") {
            span.is_critical = true;
        }
    }
}

/// Which of them was done last.
fn last(spans: &[Span], among: impl Fn(&Span) -> bool) -> Option<usize> {
    let done = spans.iter().enumerate().filter(|(_, span)| among(span));
    let done = done.filter_map(|(index, span)| span.end_seconds.map(|end| (index, end)));
    done.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
}

impl Boots {
    /// For people: the last start in full, those before it in a line each.
    #[must_use]
    pub fn describe(&self) -> String {
        struct Line<'a>(&'a Boot);
        impl Row for Line<'_> {
            const HEAD: &'static [&'static str] = &["BEGAN", "VERSION", "SLOT", "KERNEL", "READY", "ENDED"];

            fn cells(&self) -> Vec<String> {
                let boot = self.0;
                vec![
                    crate::log::time_of(boot.began),
                    boot.version.clone().unwrap_or_default(),
                    boot.slot.clone().unwrap_or_default(),
                    boot.kernel.clone(),
                    boot.ready_seconds.map_or_else(|| "never".to_owned(), |ready| format!("{ready:.2} s")),
                    boot.end(),
                ]
            }
        }
        let lines: Vec<Line<'_>> = self.boots.iter().map(Line).collect();
        let mut text = table(&lines);
        let Some(last) = self.boots.last() else { return text };
        text.push('\n');
        if let (Some(firmware), Some(loader)) = (last.firmware_seconds, last.loader_seconds) {
            text += &format!("firmware {:.2} s and loader {loader:.2} s before the kernel\n", firmware - loader);
        }
        text += &table(&last.spans);
        match last.ready_seconds {
            Some(ready) => {
                text += &format!("ready after {}\n", if ready < 60.0 { format!("{ready:.2} s") } else { span(ready) })
            }
            None => text += "not ready yet\n",
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Phase, Service};

    #[test]
    fn phases_and_services_become_spans() {
        let status = MachineStatus {
            phases: vec![Phase {
                name: "mounts".to_owned(),
                started_seconds: 1.0,
                took_seconds: 0.5,
                ..Phase::default()
            }],
            services: vec![
                Service { name: "etcd".to_owned(), started_seconds: Some(2.0), ..Service::default() },
                Service { name: "node".to_owned(), ..Service::default() },
            ],
            ..MachineStatus::default()
        };
        let mut boot = Boot::default();
        let mut told = |base: f64| {
            boot.follow(&status, base);
            let spans = boot.spans.iter();
            spans.map(|it| (it.name.clone(), it.start_seconds, it.end_seconds)).collect::<Vec<_>>()
        };
        let span = |name: &str, start, end| (name.to_owned(), start, end);
        let expected = [span("kernel", 0.0, Some(1.0)), span("mounts", 1.0, Some(1.5)), span("etcd", 2.0, None)];
        assert_eq!(told(0.0), expected);
        assert_eq!(told(1.0), [span("mounts", 0.0, Some(0.5)), span("etcd", 1.0, None)]);
    }

    #[test]
    fn the_critical_path_goes_back_from_what_was_ready_last() {
        let span = |name: &str, kind: &str, end: f64, after: &[&str]| Span {
            name: name.to_owned(),
            kind: kind.to_owned(),
            end_seconds: Some(end),
            after: after.iter().map(|name| (*name).to_owned()).collect(),
            ..Span::default()
        };
        let spans = vec![
            span("kernel", "kernel", 1.0, &[]),
            span("mounts", "phase", 1.5, &[]),
            span("machine", "service", 2.0, &[]),
            span("etcd", "service", 4.0, &["machine"]),
            span("containerd", "service", 3.0, &["machine"]),
            span("node", "service", 6.0, &["etcd", "containerd"]),
        ];
        let left_behind = vec!["/var/lib/x (stuck)".to_owned()];
        let mut boot = Boot { spans, ended: Some("asked".to_owned()), left_behind, ..Boot::default() };
        boot.mark_critical();
        let critical: Vec<&str> =
            boot.spans.iter().filter(|span| span.is_critical).map(|span| span.name.as_str()).collect();
        assert_eq!(critical, ["kernel", "mounts", "machine", "etcd", "node"]);
        let text = Boots { boots: vec![boot] }.describe();
        assert!(text.contains("not ready yet") && text.contains("never"), "{text}");
        assert!(text.contains("asked; left behind: /var/lib/x (stuck)"), "{text}");
    }
}
