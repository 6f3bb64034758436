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
}
