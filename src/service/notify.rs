//! Notification: the state of the service, for the service manager.
