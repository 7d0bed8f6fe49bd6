//! What the operator reads: one line per change, with the time since boot.
//!
//! While somebody is asked something there, the lines of others wait, not for long, and the question is told again after
//! them.

use std::io::Write;
use std::time::Duration;

/// So long lines wait while somebody reads or types.
const HOLD: Duration = Duration::from_secs(20);
/// Further ones are counted only: they are in the logs.
const HELD: usize = 200;

/// The console. Writing never fails visibly: there is nobody else to tell.
pub(crate) struct Console<W: Write> {
    out: W,
    asked: Option<Asked>,
}

/// What somebody is asked, and what waits meanwhile.
#[derive(Default)]
struct Asked {
    question: String,
    waiting: Vec<(Duration, String)>,
    left_out: usize,
}

impl<W: Write> Console<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, asked: None }
    }

    /// Prints a text, at once or once it does not come between a question and its answer.
    pub(crate) fn say(&mut self, now: Duration, text: &str) {
        match &mut self.asked {
            None => self.print(now, text),
            Some(asked) if asked.waiting.len() < HELD => asked.waiting.push((now, text.to_owned())),
            Some(asked) => asked.left_out += 1,
        }
    }

    /// Prints a text for whoever types.
    pub(crate) fn remark(&mut self, now: Duration, text: &str) {
        self.print(now, text);
    }

    /// Prints a text for whoever types, and what they are asked next; nothing if they are done.
    pub(crate) fn answer(&mut self, now: Duration, text: &str, question: Option<String>) {
        self.print(now, text);
        match question {
            Some(question) => {
                self.print(now, &question);
                self.asked.get_or_insert_default().question = question;
            }
            None => {
                self.release(now);
                self.asked = None;
            }
        }
    }

    /// How long from now lines wait; nothing if none do.
    pub(crate) fn holds_for(&self, now: Duration) -> Option<Duration> {
        let (since, _) = self.asked.as_ref()?.waiting.first()?;
        Some((*since + HOLD).saturating_sub(now))
    }

    /// Time has passed: prints what has waited long enough, and the question again.
    pub(crate) fn tick(&mut self, now: Duration) {
        if self.holds_for(now).is_some_and(|left| left.is_zero()) {
            self.release(now);
            if let Some(question) = self.asked.as_ref().map(|asked| asked.question.clone()) {
                self.print(now, &question);
            }
        }
    }

    fn release(&mut self, now: Duration) {
        let Some(asked) = &mut self.asked else { return };
        let (waiting, left_out) = (std::mem::take(&mut asked.waiting), std::mem::take(&mut asked.left_out));
        for (since, text) in waiting {
            self.print(since, &text);
        }
        if left_out > 0 {
            self.print(now, &format!("{left_out} further lines are in the logs only"));
        }
    }

    /// Each line gets the time.
    fn print(&mut self, now: Duration, text: &str) {
        let mut lines = String::new();
        for line in text.lines() {
            lines += &format!("[{:8.2}] {}\n", now.as_secs_f64(), printable(line));
        }
        // One write per message, so that messages of the kernel do not get in between.
        if self.out.write_all(lines.as_bytes()).is_ok() {
            self.out.flush().ok();
        }
    }
}

/// Control characters of a service must not steer the operator's terminal.
fn printable(line: &str) -> String {
    line.chars().map(|character| if character.is_control() && character != '\t' { '.' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What was printed, without the times.
    fn lines(console: &Console<Vec<u8>>) -> Vec<String> {
        let text = String::from_utf8(console.out.clone()).unwrap();
        text.lines().map(|line| line.split_once("] ").unwrap().1.to_owned()).collect()
    }

    #[test]
    fn each_line_gets_the_time_and_no_control_characters() {
        let mut console = Console::new(Vec::new());
        console.say(Duration::from_millis(2410), "etcd: ready\nbad \x1b[2Jline");
        assert_eq!(String::from_utf8(console.out).unwrap(), "[    2.41] etcd: ready\n[    2.41] bad .[2Jline\n");
    }

    #[test]
    fn lines_of_others_come_between_a_question_and_its_answer_only_after_a_while() {
        let mut console = Console::new(Vec::new());
        assert_eq!(console.holds_for(at(1)), None);
        console.answer(at(1), "", Some("which?".to_owned()));
        console.say(at(2), "etcd: ready");
        console.tick(at(21));
        assert_eq!((lines(&console), console.holds_for(at(21))), (vec!["which?".to_owned()], Some(at(1))));
        console.tick(at(22));
        assert_eq!(lines(&console), ["which?", "etcd: ready", "which?"]);
        assert!(String::from_utf8_lossy(&console.out).contains("[    2.00] etcd"), "it tells when it was");
        console.say(at(23), "node: ready");
        console.answer(at(24), "good", None);
        console.say(at(25), "late");
        assert_eq!(lines(&console)[3..], ["good", "node: ready", "late"]);
    }

    #[test]
    fn no_more_lines_wait_than_there_is_room_for() {
        let mut console = Console::new(Vec::new());
        console.answer(at(1), "", Some("which?".to_owned()));
        for _ in 0..=HELD {
            console.say(at(2), "x");
        }
        console.answer(at(3), "", None);
        let lines = lines(&console);
        assert_eq!((lines.len(), lines[HELD + 1].as_str()), (HELD + 2, "1 further lines are in the logs only"));
    }
}
