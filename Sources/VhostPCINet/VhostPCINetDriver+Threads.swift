internal import HostSystem
internal import Virtio
internal import VirtioSpec
internal import Virtqueue

// The host's threads, when the window is taken away.
extension VhostPCINetDriver {
    /// How long threads may take to let go of the window, in milliseconds: less than a device waits
    /// for the answer to its OFF, so that it places no other peer's memory under them.
    static let quiesceMilliseconds: UInt64 = 800
    /// How often threads that did not let go are asked again, in milliseconds.
    static let retryMilliseconds: UInt64 = 100

    /// Makes the host's threads let go. Where one does not, OFF is not acknowledged (VPN-M-04): the
    /// device is reset instead, which takes the window from under the thread without a fault, and
    /// it is driven again only once the thread has let go.
    func quiesce() {
        guard let host, !host.peerDisconnecting(milliseconds: Self.quiesceMilliseconds) else {
            return
        }
        let limit = Self.quiesceMilliseconds
        host.driverReport(
            .refused(
                Refusal("vpci/in-use", "a thread works on the window \(limit) ms after its end")
            )
        )
        tearDown()
        scheduleRetry()
    }

    private func scheduleRetry() {
        stuck = loop.after(milliseconds: Self.retryMilliseconds) { [weak self] in self?.retry() }
    }

    private func retry() {
        guard host?.peerDisconnecting(milliseconds: 0) != false else { return scheduleRetry() }
        stuck = nil
        do throws(VirtioError) {
            try start()
        } catch {
            host?.driverReport(.failed("\(error)"))
        }
    }
}
