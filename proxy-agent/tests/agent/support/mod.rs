//! What the golden cases and the property test share: maps that check themselves after every entry, and a picture of
//! what they hold.

pub(crate) mod checked;
pub(crate) mod picture;
