//! A name server that says what a test wants, and lies where it is told to.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use hickory_resolver::proto::{
    op::{Message, MessageType, Query, ResponseCode},
    rr::{Name, Record},
    serialize::binary::BinDecodable,
};
use tokio::net::UdpSocket;

/// What it says now. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Zone(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    records: Vec<Record>,
    lie: Option<Lie>,
    asked: usize,
}

#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "each test takes what it needs")]
pub(crate) enum Lie {
    /// Nothing at all.
    Silence,
    /// This code, and no records.
    Code(ResponseCode),
    /// The answer to a question that was not asked: of another number.
    WrongId,
    /// The same: of another name.
    WrongName,
}

impl Zone {
    /// Serves it, over UDP.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = self.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_bytes(&buffer[..length]) else { continue };
                if let Some(answer) = zone.answer(&question) {
                    let _ = socket.send_to(&answer.to_vec().unwrap(), from).await;
                }
            }
        });
        address
    }

    fn answer(&self, question: &Message) -> Option<Message> {
        let mut state = self.0.lock().unwrap();
        state.asked += 1;
        let id = question.metadata.id;
        let id = match state.lie {
            Some(Lie::Silence) => return None,
            Some(Lie::WrongId) => id.wrapping_add(1),
            _ => id,
        };
        let mut answer = Message::response(id, question.metadata.op_code);
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.recursion_available = true;
        for query in &question.queries {
            let fits = |record: &&Record| record.name == *query.name() && record.record_type() == query.query_type();
            let records = state.records.iter().filter(|_| !matches!(state.lie, Some(Lie::Code(_))));
            let mut records: Vec<Record> = records.filter(fits).cloned().collect();
            let mut query = query.clone();
            if matches!(state.lie, Some(Lie::WrongName)) {
                let other = Name::from_ascii("other.test.").unwrap();
                query = Query::query(other.clone(), query.query_type());
                for record in &mut records {
                    record.name = other.clone();
                }
            }
            answer.add_query(query);
            answer.add_answers(records);
        }
        answer.metadata.response_code = match state.lie {
            Some(Lie::Code(code)) => code,
            _ if answer.answers.is_empty() => ResponseCode::NXDomain,
            _ => ResponseCode::NoError,
        };
        Some(answer)
    }

    pub(crate) fn set(&self, records: Vec<Record>) {
        self.0.lock().unwrap().records = records;
    }

    pub(crate) fn lie(&self, lie: Option<Lie>) {
        self.0.lock().unwrap().lie = lie;
    }

    /// Questions so far.
    #[allow(dead_code, reason = "each test takes what it needs")]
    pub(crate) fn asked(&self) -> usize {
        self.0.lock().unwrap().asked
    }
}
