use futures::channel::mpsc as channel;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use serde_json::json;

use super::outcome::success;
use super::*;

/// A kubelet's end, by hand: what it reads are frames, of whose names of headers only the order is known.
struct Kubelet(DuplexStream);

impl Kubelet {
    /// The next frame: its first four bytes as a number, its flags and what it carries.
    async fn frame(&mut self) -> (u32, u8, Vec<u8>) {
        let mut head = [0; 8];
        self.0.read_exact(&mut head).await.unwrap();
        let [a, b, c, d, flags, x, y, z] = head;
        let mut body = vec![0; u32::from_be_bytes([0, x, y, z]) as usize];
        self.0.read_exact(&mut body).await.unwrap();
        (u32::from_be_bytes([a, b, c, d]), flags, body)
    }

    async fn takes(&mut self, count: u32) {
        for stream in 0..count {
            assert_eq!(self.frame().await.0, 0x8003_0001);
            let stream = (stream * 2 + 1).to_be_bytes();
            self.0.write_all(&[&[0x80, 3, 0, 2, 0, 0, 0, 4][..], &stream].concat()).await.unwrap();
        }
    }

    async fn says(&mut self, stream: u32, data: &[u8], is_last: bool) {
        let length = u8::try_from(data.len()).unwrap();
        let head = [&stream.to_be_bytes()[..], &[u8::from(is_last), 0, 0, length]].concat();
        self.0.write_all(&[&head, data].concat()).await.unwrap();
    }
}

fn wanted(options: Value) -> Wanted {
    Wanted::of(&options)
}

/// Runs a command: what the client says comes from `said`, what it hears is returned with what it is told at last.
async fn run(
    spoken: &str,
    wanted: Wanted,
    said: channel::Receiver<std::result::Result<Message, Error>>,
    kubelet: impl AsyncFnOnce(Kubelet),
) -> (Vec<Vec<u8>>, Option<Value>) {
    let (far, kubelets) = tokio::io::duplex(1 << 16);
    let (hears, heard) = channel::channel(64);
    let mut sink = Box::pin(hears.sink_map_err(|_closed| Error::ConnectionClosed));
    let carried = carry(far, spoken, (&mut sink, said), wanted);
    let (told, ()) = tokio::join!(carried, kubelet(Kubelet(kubelets)));
    drop(sink);
    let heard = heard.map(|message: Message| message.into_data().to_vec()).collect().await;
    (heard, told.unwrap())
}

#[tokio::test]
async fn streams_are_carried_both_ways() {
    let (mut client, said) = channel::channel(8);
    for data in [&b"\0hi"[..], b"\x09ignored", b"\x04{\"Width\":80,", b"\x04\"Height\":24}", b"\xff\0", b"\0late"] {
        client.try_send(Ok(Message::Binary(Bytes::copy_from_slice(data)))).unwrap();
    }
    let terminal = wanted(json!({"stdin": true, "stdout": true, "stderr": true, "tty": true}));
    let (heard, told) = run("v4.channel.k8s.io", terminal, said, async |mut kubelet| {
        // The result, input, output and sizes: a terminal has no second output.
        kubelet.takes(4).await;
        assert_eq!(kubelet.frame().await, (3, 0, b"hi".to_vec()));
        assert_eq!(kubelet.frame().await, (7, 0, b"{\"Width\":80,\"Height\":24}\n".to_vec()));
        assert_eq!(kubelet.frame().await, (3, 1, Vec::new()));
        kubelet.0.write_all(&[0x80, 3, 0, 6, 0, 0, 0, 4, 1, 2, 3, 4]).await.unwrap();
        assert_eq!(kubelet.frame().await, (0x8003_0006, 0, vec![1, 2, 3, 4]));
        kubelet.says(5, b"out", false).await;
        kubelet.says(5, b"", true).await;
        kubelet.says(1, br#"{"metadata":{},"status":"Success"}"#, true).await;
    })
    .await;
    assert_eq!(heard, [b"\x01out".to_vec()]);
    assert_eq!(told, Some(json!({"metadata": {}, "status": "Success"})));
    drop(client);
}

#[tokio::test]
async fn a_client_that_leaves_ends_it() {
    let (mut client, said) = channel::channel(8);
    client.try_send(Ok(Message::Close(None))).unwrap();
    let (heard, told) = run("v4.channel.k8s.io", wanted(json!({"stdout": true})), said, async |mut kubelet| {
        kubelet.takes(2).await;
        let mut rest = Vec::new();
        kubelet.0.read_to_end(&mut rest).await.unwrap();
    })
    .await;
    assert_eq!((heard, told), (Vec::new(), None));
}

#[tokio::test]
async fn a_kubelet_that_leaves_says_nothing_of_what_came_of_it() {
    let (_client, said) = channel::channel(8);
    let (_, told) = run("v4.channel.k8s.io", wanted(json!({"stdout": true})), said, async |mut kubelet| {
        kubelet.takes(2).await;
        kubelet.says(3, b"out", false).await;
    })
    .await;
    assert_eq!(told, Some(success()));
}

#[test]
fn what_came_of_a_command_is_told_as_a_status() {
    let message =
        |spoken: &str, said: &str| outcome(spoken, said.as_bytes())["message"].as_str().unwrap_or_default().to_owned();
    let exit = |details: &str| format!(r#"{{"status":"Failure","reason":"NonZeroExitCode"{details}}}"#);
    let three = exit(r#","details":{"causes":[{"reason":"ExitCode","message":"3"}]}"#);
    let v4 = "v4.channel.k8s.io";
    assert_eq!(message(v4, &three), "command terminated with non-zero exit code: command terminated with exit code 3");
    assert_eq!(outcome(v4, three.as_bytes())["details"]["causes"][0]["message"], "3");
    let wrong = "Internal error occurred: error stream protocol error:";
    assert_eq!(message(v4, &exit("")), format!("{wrong} details must be set"));
    assert_eq!(message(v4, &three.replace("\"3\"", "\"x\"")), format!("{wrong} invalid exit code value \"x\""));
    assert_eq!(message(v4, "{}"), format!("{wrong} unknown error"));
    assert!(message(v4, "text").starts_with(wrong));
    assert_eq!(message(v4, r#"{"status":"Failure","message":"it broke"}"#), "Internal error occurred: it broke");
    assert_eq!(message("v2.channel.k8s.io", "a"), "Internal error occurred: error executing remote command: a");
    assert_eq!(outcome("", b""), success());
}

#[test]
fn kubelets_that_do_not_upgrade_are_told() {
    assert_eq!(not_upgraded(br#"{"kind":"Status","code":403}"#)["code"], 403);
    let told = not_upgraded(b"no such container\n");
    assert_eq!(told["message"], "Internal error occurred: unable to upgrade connection: no such container");
    assert!(told["kind"].is_null() && told["details"]["causes"][0]["reason"].is_null());
}

#[test]
fn the_first_channel_tells_that_it_is_there() {
    let first = |options: Value| wanted(options).first();
    assert_eq!([first(json!({"stdout": true})), first(json!({"stderr": true})), first(json!({}))], [1, 2, 3]);
}
