// SPDX-License-Identifier: Apache-2.0
//! Tests of the book of jobs.

use bytes::Bytes;

use super::*;
use crate::clock;
use crate::jobs::record::Report;
use crate::jobs::store::tests::record;

const ROOM: Room = Room { max: 3, bytes_max: 100 };

fn book() -> Book {
    Book::open(Store::in_memory().unwrap(), Arc::new(Metrics::new().unwrap())).unwrap()
}

fn submit(book: &Book, record: Record, body: &[u8]) -> Result<bool, Refused> {
    book.submit(record, body, None, ROOM).map(|submitted| submitted.known)
}

fn answer() -> Answer {
    Answer { status: 200, headers: Vec::new(), body: Bytes::from_static(b"done") }
}

fn is_told(call_off: &Notify) -> bool {
    let mut told = std::pin::pin!(call_off.notified());
    told.as_mut().enable()
}

#[test]
fn there_is_room_for_so_many_and_what_is_forgotten_makes_room() {
    let book = book();
    assert!(matches!(submit(&book, record("0"), &[0; 101]), Err(Refused::Full("jobs.bytes_max"))));
    for id in ["1", "2", "3"] {
        assert!(!submit(&book, record(id), &[0; 30]).unwrap());
    }
    assert!(matches!(submit(&book, record("4"), b""), Err(Refused::Full("jobs.max"))));
    book.take(true).unwrap();
    book.end("1", Status::Succeeded, "v/m", &answer()).unwrap();
    assert_eq!(book.read().bytes(), 64, "its body has gone, its answer is kept");
    assert_eq!(book.forget_before(0).unwrap(), 0, "it has only just ended");
    assert_eq!(book.forget_before(clock::unix_ms() + 1).unwrap(), 1, "those that are not over are kept");
    assert_eq!((book.find("1"), book.answer("1").unwrap()), (None, None));
    assert!(submit(&book, record("4"), b"").is_ok());
}

#[test]
fn a_key_is_of_one_caller_and_one_request() {
    let book = book();
    let keyed = |id: &str, digest: &str, subject: &str| {
        let mut record = Record { key: Some("k".to_owned()), digest: digest.to_owned(), ..record(id) };
        subject.clone_into(&mut record.owner.subject);
        record
    };
    assert!(!submit(&book, keyed("1", "d", "alice"), b"").unwrap());
    assert!(submit(&book, keyed("2", "d", "alice"), b"").unwrap());
    assert!(matches!(submit(&book, keyed("3", "e", "alice"), b""), Err(Refused::KeyReused)));
    assert!(!submit(&book, keyed("4", "e", "bob"), b"").unwrap());
    book.call_off("1", true).unwrap();
    assert!(!submit(&book, keyed("5", "e", "alice"), b"").unwrap(), "a forgotten job has no key");
}

#[test]
fn the_oldest_goes_first_and_what_was_called_off_waits_for_nothing() {
    let book = book();
    for id in ["2", "1", "3"] {
        submit(&book, record(id), b"").unwrap();
    }
    let first = book.take(true).unwrap().record;
    assert_eq!((&*first.id, first.status), ("1", Status::Running));
    book.sent("2", "v/m", 0).unwrap();
    book.call_off("2", false).unwrap();
    book.call_off("3", false).unwrap();
    let second = book.take(false).unwrap().record;
    assert_eq!((&*second.id, second.status, second.to_cancel), ("2", Status::Cancelled, true));
    assert!(book.take(true).is_none(), "the third one has asked no vendor");
    assert!(!book.find("3").unwrap().to_cancel);
    book.called_off("2").unwrap();
    assert!(!book.find("2").unwrap().to_cancel);
}

#[test]
fn an_answer_that_comes_after_the_job_was_called_off_is_not_kept() {
    let book = book();
    submit(&book, record("1"), b"").unwrap();
    let taken = book.take(true).unwrap();
    book.call_off("1", false).unwrap();
    assert!(is_told(&taken.call_off), "whoever works on it is told");
    book.end("1", Status::Succeeded, "v/m", &answer()).unwrap();
    assert_eq!(book.find("1").unwrap().status, Status::Cancelled);
    assert_eq!(book.answer("1").unwrap(), None);
}

#[test]
fn what_was_being_worked_on_is_in_the_queue_when_the_book_is_opened_again() {
    let state = tempfile::tempdir().unwrap();
    let metrics = || Arc::new(Metrics::new().unwrap());
    let recorded = Recorded { status: 200, headers: Vec::new(), body: Bytes::from_static(b"t1") };
    {
        let book = Book::open(Store::open(state.path()).unwrap(), metrics()).unwrap();
        for id in ["1", "2", "3"] {
            submit(&book, record(id), b"body").unwrap();
        }
        book.take(true).unwrap();
        book.sent("1", "v/m", 0).unwrap();
        book.answered("1", "v/m", 0, &recorded).unwrap();
        book.take(true).unwrap();
        book.end("2", Status::Failed, "v/m", &answer()).unwrap();
    }
    let book = Book::open(Store::open(state.path()).unwrap(), metrics()).unwrap();
    let first = book.take(true).unwrap().record;
    assert_eq!(first.sent, Some(Sent { target: "v/m".to_owned(), step: 0, answered: true }));
    assert_eq!(book.inputs("1").unwrap(), (Bytes::from_static(b"body"), vec![recorded]));
    assert_eq!(book.take(true).unwrap().record.id, "3");
    assert!(book.take(true).is_none());
    assert_eq!(book.answer("2").unwrap(), Some(answer()));
}

#[test]
fn a_report_is_due_when_the_job_is_over_and_until_it_has_arrived() {
    let book = book();
    let report = Report { url: "https://a".to_owned(), tries: 0, next_ms: None };
    submit(&book, Record { report: Some(report), ..record("1") }, b"").unwrap();
    assert!(book.take_report().is_none());
    book.take(true).unwrap();
    book.end("1", Status::Succeeded, "v/m", &answer()).unwrap();
    assert!(book.take_report().is_some());
    assert!(book.take_report().is_none(), "it is under way");
    book.reported("1", Some(clock::unix_ms() + 60_000)).unwrap();
    assert!(book.take_report().is_none() && book.next_report_ms().is_some());
    book.reported("1", None).unwrap();
    assert_eq!((book.next_report_ms(), book.find("1").unwrap().report.clone().unwrap().tries), (None, 2));
}

#[test]
fn pages_have_the_jobs_of_one_caller_in_order() {
    let book = book();
    for (id, operation) in [("1", "images"), ("2", "videos"), ("3", "images")] {
        let mut record = record(id);
        operation.clone_into(&mut record.asked.operation);
        submit(&book, record, b"").unwrap();
    }
    let page = |operation, after, oldest_first, limit| {
        let page = Page { route: "ai", subject: "alice", operation, after, oldest_first, limit };
        let (records, more) = book.page(&page);
        (records.iter().map(|record| record.id.clone()).collect::<Vec<_>>().concat(), more)
    };
    assert_eq!(page(None, None, false, 2), ("32".to_owned(), true));
    assert_eq!(page(None, Some("2"), false, 2), ("1".to_owned(), false));
    assert_eq!(page(Some("images"), None, true, 9), ("13".to_owned(), false));
    let nobodys = Page { route: "ai", subject: "bob", operation: None, after: None, oldest_first: false, limit: 9 };
    assert!(book.page(&nobodys).0.is_empty());
}
