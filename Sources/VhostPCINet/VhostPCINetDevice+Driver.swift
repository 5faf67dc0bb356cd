internal import GuestMemory
internal import HostSystem
internal import VhostUser
public import Virtio
public import VirtioSpec
internal import Virtqueue

// The driver's side: virtio queues 0 and 1.
extension VhostPCINetDevice {
    /// Any subset can be served. A peer that agreed to more than this driver takes has to come again
    /// and agree to less: a back-end cannot ask for that on an open connection (VPN-D-07).
    public func acceptsFeatures(_ features: FeatureBits) -> Bool {
        mirror.driver = features
        backend?.offeredFeatures = mirror.offerToPeer
        if mirror.peer != nil, mirror.agreed == nil {
            backend?.disconnect("vpci/features: the driver takes fewer than the peer uses")
        }
        return true
    }

    /// DRIVER_OK.
    public func activate(_ context: any DeviceContext) {
        self.context = context
        mirror.driver = context.features
        backend?.offeredFeatures = mirror.offerToPeer
        outbox.clear()
        // Without a control queue the driver hears of no peer and uses none: not a fault (DEV-S-10).
        guard context.queue(Self.controlReceiveQueue) != nil,
            context.queue(Self.controlTransmitQueue) != nil
        else { return }
        do {
            controlReceive = try DeviceBufferQueue(
                context: context,
                queue: Self.controlReceiveQueue
            )
            controlTransmit = try DeviceBufferQueue(
                context: context,
                queue: Self.controlTransmitQueue
            )
        } catch {
            return fail(DeviceFault(error.rawValue, queue: controlReceive == nil ? 0 : 1))
        }
        startMemoryCheck()
        post(.driverReady)
    }

    /// The driver notified a queue. Receive queues carry interrupts only: whatever buffers are in
    /// them, the packets are in the peer's memory.
    public func queueNotified(_ queue: Int) {
        switch queue {
        case Self.controlReceiveQueue: deliver()
        case Self.controlTransmitQueue: readControl()
        default: break
        }
    }

    /// The driver resets the device, which counts as OFF: the peer is let go (HI-G34, VPN-D-24).
    public func deactivate() {
        letDriverGo()
        context = nil
    }

    /// The machine of the driver is gone: the same as a reset, for the peer (VPN-D-24).
    public func driverLost() {
        letDriverGo()
        context = nil
    }

    /// Asks for a reset and works no more until then.
    func fail(_ fault: DeviceFault) {
        report?(.failed(fault.description))
        context?.fail(fault)
        letDriverGo()
    }

    private func letDriverGo() {
        controlReceive = nil
        controlTransmit = nil
        mirror.driver = nil
        backend?.offeredFeatures = mirror.offerToPeer
        post(.driverGone)
        outbox.clear()
    }

    // MARK: to the driver

    /// Queues a message and sends what there are buffers for.
    func send(_ notice: DeviceState.Notice) {
        switch notice {
        case .memory: outbox.post([memoryInformation.frame], as: .memory)
        case .queues: outbox.post(queueInformation.map(\.frame), as: .queues)
        case .on: outbox.post([DeviceMessage.connection(isOn: true).frame], as: .on)
        case .off: outbox.post([DeviceMessage.connection(isOn: false).frame], as: .off)
        }
        deliver()
    }

    /// Sends waiting messages for as long as the driver has buffers (VPN-D-20). A message that does
    /// not fit is not cut (VPN-D-19).
    private func deliver() {
        while let entry = outbox.first, let queue = controlReceive {
            guard let buffer = queue.next() else { return checkForFault(queue) }
            guard entry.frame.count <= buffer.writableCount else {
                return fail(DeviceFault("vpci/buffer-size", queue: Self.controlReceiveQueue))
            }
            queue.complete(buffer, writing: entry.frame)
            outbox.removeFirst()
            if entry.isLast { post(.delivered(entry.notice)) }
        }
    }

    /// The queue reported the fault to the context itself.
    private func checkForFault(_ queue: DeviceBufferQueue) {
        guard let fault = queue.fault else { return }
        report?(.failed(fault.error.rawValue))
        letDriverGo()
    }

    // MARK: from the driver

    /// Messages of one driver that are read before others get their turn (R3, HI-G32).
    private static let messagesPerTurn = 64

    private func readControl() {
        for _ in 0..<Self.messagesPerTurn {
            guard let queue = controlTransmit else { return }
            guard let buffer = queue.next() else { return checkForFault(queue) }
            queue.complete(buffer)
            take(buffer.readable)
        }
        guard !isDrainScheduled else { return }
        isDrainScheduled = true
        loop.after(milliseconds: 0) { [weak self] in
            self?.isDrainScheduled = false
            self?.readControl()
        }
    }

    private func take(_ frame: [UInt8]) {
        // Nothing that could be called a message (HI-G32).
        guard frame.count >= 2 else {
            report?(.refused(Refusal("vpci/unknown", "a message of \(frame.count) bytes")))
            return
        }
        do throws(ControlFrameError) {
            switch try DriverMessage(frame: frame) {
            case .off: post(.driverOff)
            case .windowAddress(let address, let generation): acknowledge(address, generation)
            }
        } catch {
            // VPN-D-21: such a driver is not one that this device can go on with.
            report?(.refused(Refusal(error.id, error.description)))
            fail(DeviceFault(error.id, queue: Self.controlTransmitQueue))
        }
    }

    /// The address is compared and forgotten, never followed (HI-G31).
    private func acknowledge(_ address: UInt64, _ number: UInt32?) {
        refuse { () throws(Refusal) in
            guard number ?? generation == generation, acknowledgedGeneration != generation else {
                throw Refusal("vpci/gva", "table \(number ?? generation) was acknowledged before")
            }
            let end = address.addingReportingOverflow(UInt64(window.slice.size))
            guard !end.overflow, address % WindowPlacement.granule == 0,
                !options.sharesAddressSpace || address == windowAddress
            else { throw Refusal("vpci/gva", "a window at \(address.hexadecimal)") }
            acknowledgedGeneration = generation
            post(.acknowledged(generation: number))
        }
    }

    private var windowAddress: UInt64 {
        UInt64(UInt(bitPattern: unsafe window.slice.mapping.address)) + UInt64(window.slice.offset)
    }
}
