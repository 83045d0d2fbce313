// SPDX-License-Identifier: Apache-2.0
//! Endpoints that register themselves with the admin API: those of a name that were heard of within their time.

use std::time::Duration;

use super::Seeker;
use crate::clock;
use crate::directory::document::Kind;
use crate::directory::settings::Settings;
use crate::upstream::fleet::Found;

/// How often it is looked. All of it is in memory.
const LOOK: Duration = Duration::from_millis(500);

/// Looks for as long as somebody wants to know.
pub(super) async fn follow(seeker: &mut Seeker, name: &str) {
    loop {
        let found = look(seeker, name);
        // Nobody was there yet: that is no news every half second.
        if !(found.is_empty() && seeker.last.is_empty() || found == seeker.last)
            || seeker.failed > 0 && !found.is_empty()
        {
            seeker.put(found);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn look(seeker: &Seeker, name: &str) -> Vec<Found> {
    let (view, now) = (seeker.means.directory.view(), clock::unix_s());
    let services = view.iter(Kind::Service).filter_map(|document| match &document.settings {
        Settings::Service(service) if service.name == name => Some((document, service)),
        _ => None,
    });
    let heard = services.filter(|(document, service)| {
        let last = seeker.means.beats.last(&document.id);
        last.is_some_and(|last| now.saturating_sub(last) <= service.ttl_s)
    });
    let found = heard.map(|(_, service)| Found { url: service.url.clone(), at: None, weight: 1, priority: 0 });
    found.collect()
}
