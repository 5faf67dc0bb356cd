internal import HostSystem
internal import Virtio
internal import VirtioSpec
internal import Virtqueue

// The control queue (virtio 1.3 §5.1.6.5).
extension NetDevice {
    /// Commands of one driver that are served before others get their turn.
    private static let commandsPerTurn = 64

    /// Behind all pairs, or behind the first for a driver that knows of one only.
    var controlIndex: Int {
        context?.features.contains(.netMultiqueue) == true ? 2 * options.queuePairs : 2
    }

    /// Opens the queue, if there is one.
    func openControl() {
        guard let context, context.features.contains(.netControlQueue),
            context.queue(controlIndex) != nil
        else { return }
        do throws(QueueError) {
            control = try DeviceBufferQueue(context: context, queue: controlIndex)
        } catch {
            fail(DeviceFault(error.rawValue, queue: controlIndex))
        }
    }

    /// Answers commands; a broken queue has told the context itself.
    func serveControl() {
        for _ in 0..<Self.commandsPerTurn {
            guard !hasFailed, let control, let buffer = control.next() else { return }
            let isDone = obey(buffer.readable)
            control.complete(
                buffer,
                writing: [isDone ? NetControl.accepted : NetControl.refused]
            )
        }
        guard !isControlScheduled else { return }
        isControlScheduled = true
        loop.after(milliseconds: 0) { [weak self] in
            self?.isControlScheduled = false
            self?.serveControl()
        }
    }

    private func obey(_ bytes: [UInt8]) -> Bool {
        guard let context else { return false }
        let choosesFrames = context.features.contains(.netControlReceive)
        // Whoever moves the packets decides what comes here, and a driver may get more than it
        // asked for: tables of addresses are noted by nobody.
        if bytes.starts(with: NetControl.setAddressTable) { return choosesFrames }
        switch NetControl(bytes) {
        case .promiscuous, .allMulticast:
            return choosesFrames
        case .queuePairs(let count):
            guard context.features.contains(.netMultiqueue),
                (1...options.queuePairs).contains(Int(count))
            else { return false }
            setPairs(Int(count))
            return true
        case nil:
            report?(
                .refused(
                    id: "net/command",
                    detail: "command \(bytes.prefix(2).map(Int.init)) of \(bytes.count) bytes"
                )
            )
            return false
        }
    }

    private func setPairs(_ count: Int) {
        guard count != activePairs else { return }
        detach()
        activePairs = count
        attach()
    }
}
