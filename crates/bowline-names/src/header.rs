//! The HTTP headers that are Bowline's own.

crate::table! {
    /// An HTTP header that Bowline sends, or that means something to it, and to nobody else.
    pub enum Header;

    columns {
        /// Says what it means.
        help: &'static str,
        /// The name, in lower case.
        name: &'static str,
    }

    Probe {
        help: "Marks the requests of the server's own probe of itself, which are left out of what is counted; a proxy must pass it on.",
        name: "x-bowline-probe",
    }
    ServedBy {
        help: "Who served an answer of the AI gateway, as PROVIDER/MODEL.",
        name: "bowline-served-by",
    }
    Attempts {
        help: "Who was asked for an answer of the AI gateway, in order, each with its outcome and how long it took: `kimi;timeout;75000ms, glm;ok;812ms`. In a stream the last one is under way, and its time is that until the first content.",
        name: "bowline-attempts",
    }
    Replayed {
        help: "`true` where an answer of the AI gateway was given to a request with the same `Idempotency-Key` already, or is being given to it; `x-request-id` is that request's.",
        name: "bowline-replayed",
    }
    Session {
        help: "Sent with a request to the AI gateway: which session it belongs to. `ai.max-concurrent-per-session` bounds the requests of one.",
        name: "bowline-session",
    }
    Priority {
        help: "Sent with a request to the AI gateway: `high`, `normal` or `low`, where requests wait; none goes before what its key has.",
        name: "bowline-priority",
    }
}
