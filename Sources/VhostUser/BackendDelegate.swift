public import HostSystem

/// What a device does with the front-end that a back-end serves. Calls come from the control thread.
public protocol BackendDelegate: AnyObject {
    /// A front-end connected; nothing is known of it yet.
    func backendConnected(_ backend: Backend)

    /// A message is about to change memory or rings that may be in use. The delegate stops every
    /// use of the snapshot it last got, then calls `resume` exactly once, at once or later but
    /// within `BackendLimits.quiesce`; until then the back-end reads no further message of this
    /// connection. The message's reply is sent after `resume`.
    func backend(_ backend: Backend, quiesce resume: @escaping () -> Void)

    /// Features, memory or a started ring changed, and no message is half-way: use this snapshot
    /// from now on. It comes once for all messages of a turn of the event loop, and always after a
    /// `quiesce`: then every ring's `nextAvailable` is where the device left it. Without one, rings
    /// that were working go on where they are (`PeerRing.continues`).
    func backend(_ backend: Backend, changed description: PeerDescription)

    /// The call descriptor of one ring was replaced while everything else stays; the back-end
    /// signals the new one once after this returns, if the ring is working (VU-B-14).
    func backend(_ backend: Backend, callChanged ring: Int, to call: FileDescriptor?)

    /// The connection ended, by the front-end or for a fault. Stop every use of the last snapshot
    /// before this returns; its files are closed afterwards.
    func backend(_ backend: Backend, disconnected reason: DisconnectReason)

    /// The next available index of a ring that was started in the last snapshot, asked right after
    /// `quiesce` was resumed: it answers GET_VRING_BASE (VU-R-02) and stands in the next snapshot.
    /// `nil` when the ring was never worked on.
    func backend(_ backend: Backend, nextAvailableOf ring: Int) -> UInt16?

    /// A request was refused, or a connection turned away or ended for a fault: for step lines. The
    /// back-end has counted it (`Backend.violations`); the default does nothing.
    func backend(_ backend: Backend, refused violation: Violation)
}

extension BackendDelegate {
    /// Nothing.
    public func backend(_ backend: Backend, refused violation: Violation) {}
}

/// Why a front-end's connection ended.
public enum DisconnectReason: Sendable, Equatable, CustomStringConvertible {
    /// The front-end closed it.
    case closed
    /// We closed it because of what it sent: the error id and details.
    case fault(id: String, detail: String)
    /// We closed it because the device asked for it.
    case requested(String)

    /// One line for people.
    public var description: String {
        switch self {
        case .closed: "closed by the front-end"
        case .fault(let id, let detail): "\(id): \(detail)"
        case .requested(let why): why
        }
    }
}
