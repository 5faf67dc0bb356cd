internal import HostSystem
internal import PCI
internal import VirtioSpec

// Accesses to the BARs. Nothing here depends on whether an access is natural, aligned or sensible.
extension VirtioPCIFunction {
    func readMemory(_ bar: Int, _ offset: UInt64, _ width: AccessWidth) -> UInt32 {
        if let window = window(bar) { return readWindow(window, offset, width) }
        var value: UInt32 = 0
        for index in 0..<width.rawValue {
            let byte = bar == VirtioBARLayout.bar ? readByte(offset &+ UInt64(index)) : 0xff
            value |= UInt32(byte) << UInt32(8 * index)
        }
        return value
    }

    func writeMemory(_ bar: Int, _ offset: UInt64, _ width: AccessWidth, _ value: UInt32) {
        if let window = window(bar) { return writeWindow(window, offset, width, value) }
        guard bar == VirtioBARLayout.bar else { return }
        if offset % VirtioBARLayout.page + UInt64(width.rawValue) > VirtioBARLayout.page {
            // Two structures: each byte belongs to its own.
            for index in 0..<width.rawValue {
                let byte = value >> UInt32(8 * index) & 0xff
                writeStructure(offset &+ UInt64(index), .byte, byte)
            }
        } else {
            writeStructure(offset, width, value)
        }
    }

    /// The slot whose register begins at `offset` of the peer-notify structure.
    func peerSlot(_ offset: UInt64) -> Int? {
        offset % UInt64(VirtioBARLayout.notifyMultiplier) == 0
            ? Int(offset / UInt64(VirtioBARLayout.notifyMultiplier)) : nil
    }

    private func readByte(_ offset: UInt64) -> UInt8 {
        guard let (structure, at) = layout.structure(at: offset) else { return 0 }
        switch structure {
        case .common:
            guard let register = CommonConfiguration(byte: Int(at)) else { return 0 }
            let value = registers.read(register, device)
            return UInt8(truncatingIfNeeded: value >> UInt32(8 * (Int(at) - register.offset)))
        case .interruptStatus:
            // One reader gets the bits (HI-H20).
            defer { interruptStatus = 0 }
            return interruptStatus
        case .device:
            return registers.configuration.byte(Int(at), of: device.configuration)
        case .notify, .peerNotify:
            return 0
        case .vectors:
            return UInt8(truncatingIfNeeded: vectors.readTable(at, .byte))
        case .pendingBits:
            return UInt8(truncatingIfNeeded: vectors.readPending(at, .byte))
        }
    }

    private func writeStructure(_ offset: UInt64, _ width: AccessWidth, _ value: UInt32) {
        guard let (structure, at) = layout.structure(at: offset) else { return }
        switch structure {
        case .common: writeCommon(Int(at), width, value)
        case .device: writeDeviceConfiguration(Int(at), width, value)
        case .notify: notifyQueue(at, width, value)
        case .peerNotify: notifyPeer(at, width)
        case .vectors: vectors.writeTable(at, width, value)
        case .interruptStatus, .pendingBits: break
        }
    }

    // A write over two registers writes each; one of a part keeps the rest (HI-H2).
    private func writeCommon(_ offset: Int, _ width: AccessWidth, _ value: UInt32) {
        var at = offset
        let end = offset + width.rawValue
        while at < end, let register = CommonConfiguration(byte: at) {
            let next = min(end, register.offset + register.width)
            var merged = registers.read(register, device)
            for byte in at..<next {
                let lane = UInt32(8 * (byte - register.offset))
                let written = value >> UInt32(8 * (byte - offset)) & 0xff
                merged = merged & ~(0xff << lane) | written << lane
            }
            let effect = registers.write(register, merged, device)
            apply(effect)
            at = next
        }
    }

    private func writeDeviceConfiguration(_ offset: Int, _ width: AccessWidth, _ value: UInt32) {
        let count = min(width.rawValue, layout.configurationLength - offset)
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt32(8 * $0)) }
        if !device.writeConfiguration(bytes, at: offset) { incidents.count("region/range") }
    }

    // The address names the queue and so does the value; with NOTIFICATION_DATA its upper half is a
    // hint that is not used (HI-H19).
    private func notifyQueue(_ offset: UInt64, _ width: AccessWidth, _ value: UInt32) {
        let multiplier = UInt64(VirtioBARLayout.notifyMultiplier)
        let queue = Int(offset / multiplier)
        guard offset % multiplier == 0, width != .byte, Int(value & 0xffff) == queue,
            registers.queues.indices.contains(queue), registers.queues[queue].isEnabled
        else {
            incidents.count("notify/index")
            return
        }
        guard registers.status.isRunning else { return }
        device.queueNotified(queue)
    }

    private func notifyPeer(_ offset: UInt64, _ width: AccessWidth) {
        guard width != .byte, let slot = peerSlot(offset), let doorbells = provider?.peerDoorbells,
            slot < doorbells.count
        else {
            incidents.count("notify/index")
            return
        }
        doorbells.ring(slot)
    }
}
