//! All ranks as one: form a group at an epoch, step under a deadline, notice a loss.

mod member;

pub use member::{Member, MemberError, MemberRequest};
