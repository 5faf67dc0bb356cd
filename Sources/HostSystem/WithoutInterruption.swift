internal import CSystemShims

/// Does something that must not be left half-way: SIGINT, SIGTERM and SIGHUP reach this thread after
/// it. For processes with one thread (HI-J26).
public func withoutInterruption<Result>(_ work: () throws -> Result) throws -> Result {
    try checked(shim_hold_terminations(), "hold signals back")
    defer { _ = shim_release_terminations() }
    return try work()
}
