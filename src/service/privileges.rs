//! Privileges: root's rights, given up for good.
