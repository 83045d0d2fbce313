// SPDX-License-Identifier: Apache-2.0
//! A second target, asked beside one that is slow. Who speaks first is passed on; dropping the other try closes its connection,
//! or resets its stream, and says nothing of how its target is doing.

use std::pin::pin;

use super::{answered, missed};
use crate::attempt::{Answer, Asking, Miss, Tries, Try};
use crate::ledger::Entry;
use crate::routes::Target;
use crate::stages::Gate;
use crate::upstream::Hedge;

/// What has come of a turn: an answer, nothing yet, or why nobody else would do better.
type Turned = Result<Option<Answer>, Miss>;

/// Asks a target, and if it is silent for too long, another one beside it.
///
/// # Errors
/// Why there is no answer, if nobody else would do better.
pub(super) async fn raced<'t>(
    hedge: &Hedge,
    gate: &Gate,
    asking: &Asking<'_>,
    turn: &Try<'t>,
    tries: &mut Tries<'t>,
    entry: &mut Entry,
) -> Turned {
    let (first, number) = (turn.target, entry.attempts);
    let mut tried = pin!(asking.target(first, turn.attempt, false));
    let left = tries.left();
    let patience = async {
        tokio::time::sleep(hedge.after).await;
        asking.stand_in(first, left, hedge, gate, number).await
    };
    let stand_in = tokio::select! {
        biased;
        tried = &mut tried => return alone(tried, first, asking, tries, entry),
        stand_in = patience => stand_in,
    };
    let (second, permit) = match stand_in {
        Ok(stand_in) => tries.begins_beside(stand_in),
        Err(why) => {
            entry.hedge = why;
            return alone(tried.await, first, asking, tries, entry);
        }
    };
    entry.hedges(second, permit);
    second.begins();
    let twin = asking.twin();
    let mut beside = pin!(twin.target(second, number, false));
    tokio::select! {
        biased;
        answer = &mut tried => {
            entry.swaps();
            let spoke = answer.is_ok();
            let turned = alone(answer, first, asking, tries, entry);
            if spoke || turned.is_err() {
                entry.outruns();
                entry.hedge = Some("lost");
                return turned;
            }
            entry.goes_on_alone();
            let answer = beside.await;
            entry.hedge = Some(if answer.is_ok() { "won" } else { "failed" });
            tries.turns_to_beside();
            alone(answer, second, asking, tries, entry)
        }
        answer = &mut beside => match answer {
            Ok(answer) => {
                entry.outruns();
                entry.hedge = Some("won");
                Ok(Some(answered(answer, second, asking, entry)))
            }
            Err(miss) => {
                missed(&miss, second, entry);
                entry.hedge = Some("failed");
                entry.goes_on_alone();
                let turned = alone(tried.await, first, asking, tries, entry);
                tries.missed_beside(&miss, asking);
                turned
            }
        },
    }
}

/// What comes of a target beside which nobody is asked any more.
fn alone(
    tried: Result<Answer, Miss>,
    target: &Target,
    asking: &Asking<'_>,
    tries: &mut Tries<'_>,
    entry: &mut Entry,
) -> Turned {
    match tried {
        Ok(answer) => Ok(Some(answered(answer, target, asking, entry))),
        Err(miss) => {
            missed(&miss, target, entry);
            tries.missed(miss, asking).map(|()| None)
        }
    }
}
