//! A client of confab: HTTP and WebSocket, for programs, tests and the terminal.
