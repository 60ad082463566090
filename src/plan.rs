//! Settings of the command as settings of its parts.
//!
//! Each part has narrow settings of its own and knows nothing of files and flags; here is where the one is
//! made of the other, field by field, so that a setting that reaches no part does not compile unnoticed.

use std::num::NonZeroUsize;
use std::time::Duration;

use ringway_api::ApiSettings;
use ringway_gateway::GatewaySettings;
use ringway_gateway::context::ConnectionSettings;
use ringway_router::RouterSettings;
use ringway_store_writer::StoreSettings;

use crate::settings::Settings;
use crate::settings::field::Threads;

/// The gateway's part.
pub(crate) fn gateway(settings: &Settings, resume_key: [u8; 32]) -> GatewaySettings {
    let (limits, gateway) = (&settings.limits, &settings.gateway);
    let origins = gateway.allowed_origins.clone();
    GatewaySettings {
        wss: settings.listen.wss.address(),
        ws: settings.listen.ws.address(),
        cores: count(gateway.cores),
        rings_per_core: count(gateway.rings_per_core),
        io: gateway.io.0,
        connections_max: gateway.connections_max,
        connections_per_address: limits.connections_per_address,
        socket_send_buffer_bytes: limits.socket_send_buffer_bytes,
        connection: ConnectionSettings {
            message_bytes_max: limits.max_frame_bytes,
            inflight_max: limits.max_inflight,
            queue_bytes_max: limits.max_queue_bytes,
            sends_per_second: limits.send_per_s,
            send_burst: limits.send_burst,
            dedup_window_seconds: limits.dedup_window_s,
            partial_bytes_max: limits.partial_bytes,
            origins: (!origins.is_empty()).then_some(origins),
            echo: settings.diagnostics.echo,
            relay: settings.diagnostics.relay,
            resume_key,
        },
    }
}

/// The router's part.
pub(crate) fn router(settings: &Settings) -> RouterSettings {
    let (limits, router) = (&settings.limits, &settings.router);
    let defaults = RouterSettings::default();
    RouterSettings {
        worker_count: count(router.workers).map_or(defaults.worker_count, NonZeroUsize::get),
        pinned: router.pinned,
        region: u8::try_from(router.region).unwrap_or(u8::MAX),
        connections_per_user: limits.connections_per_user,
        conversations_loaded_max: router.conversations_loaded_max,
        members_loaded_max: router.members_loaded_max,
        dedup_keys_max: router.dedup_keys_max,
        dedup_window_seconds: limits.dedup_window_s,
        inflight_max: router.inflight_max,
        inflight_bytes_max: router.inflight_bytes_max,
        ..defaults
    }
}

/// The store's part.
pub(crate) fn store(settings: &Settings) -> StoreSettings {
    let store = &settings.store;
    let defaults = StoreSettings::default();
    // The router looks back twice the window.
    let send_lifetime = Duration::from_secs(settings.limits.dedup_window_s.saturating_mul(2));
    StoreSettings {
        cache_bytes: store.cache_bytes,
        reserve_bytes: store.reserve_bytes,
        free_bytes_min: store.free_bytes_min,
        readers: store.readers,
        background_threads: store.background_threads,
        send_lifetime: defaults.send_lifetime.max(send_lifetime),
        ..defaults
    }
}

/// The API's part.
pub(crate) fn api(settings: &Settings, resume_key: [u8; 32]) -> ApiSettings {
    ApiSettings {
        body_bytes_max: settings.limits.max_frame_bytes,
        requests_per_second: settings.limits.send_per_s,
        request_burst: settings.limits.send_burst,
        cursor_key: resume_key,
    }
}

fn count(threads: Threads) -> Option<NonZeroUsize> {
    match threads {
        Threads::Auto => None,
        Threads::Exactly(count) => NonZeroUsize::new(usize::from(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_of_idempotency_reaches_every_part_and_the_store_keeps_keys_twice_as_long() {
        let mut settings = Settings::default();
        let week = Duration::from_secs(7 * 86_400);
        assert_eq!(store(&settings).send_lifetime, week);
        for (window, lifetime) in [(60, week), (30 * 86_400, Duration::from_secs(60 * 86_400))] {
            settings.limits.dedup_window_s = window;
            assert_eq!(gateway(&settings, [0; 32]).connection.dedup_window_seconds, window);
            assert_eq!(router(&settings).dedup_window_seconds, window);
            assert_eq!(store(&settings).send_lifetime, lifetime);
        }
    }
}
