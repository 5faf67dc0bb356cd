import Testing
import VirtioSpec

@Suite struct ControlFramesTests {
    // MARK: vectors

    @Test func `a connection message is two bytes`() throws {
        #expect(DeviceMessage.connection(isOn: true).frame == [0, 1])
        #expect(DeviceMessage.connection(isOn: false).frame == [0, 0])
        #expect(DriverMessage.off.frame == [0, 0])
        #expect(try DeviceMessage(frame: [0, 1]) == .connection(isOn: true))
        #expect(try DriverMessage(frame: [0, 0]) == .off)
    }

    @Test func `a window address is ten bytes, or fourteen with its generation`() throws {
        let short = bytes("0101 0000000000 7f0000")
        #expect(DriverMessage.windowAddress(0x7f00_0000_0000, generation: nil).frame == short)
        #expect(
            try DriverMessage(frame: short) == .windowAddress(0x7f00_0000_0000, generation: nil)
        )
        let long = DriverMessage.windowAddress(0x7f00_0000_0000, generation: 3)
        #expect(long.frame == short + [3, 0, 0, 0])
        #expect(try DriverMessage(frame: long.frame) == long)
    }

    @Test func `memory information of a guest with two regions of one file`() throws {
        let frame = bytes(
            """
            0100 0200000000000000 0100 2800 02000000 0000000000000000 0000000002000000 00000000
            01000000 0000000000000000 0000008000000000 00f0ffc3697f0000 0000000000000000 03000000
            00000000 0000000001000000 0000008000000000 00f0ff436a7f0000 0000008000000000 03000000
            00000000
            """
        )
        let information = PeerMemoryInformation(
            location: .bar(2),
            windowOffset: 0,
            windowSize: 0x2_0000_0000,
            generation: 1,
            regions: [
                .init(
                    guestAddress: 0,
                    size: 0x8000_0000,
                    userAddress: 0x7f69_c3ff_f000,
                    barOffset: 0
                ),
                .init(
                    guestAddress: 0x1_0000_0000,
                    size: 0x8000_0000,
                    userAddress: 0x7f6a_43ff_f000,
                    barOffset: 0x8000_0000
                ),
            ]
        )
        #expect(frame.count == 122)
        #expect(DeviceMessage.memory(information).frame == frame)
        #expect(try DeviceMessage(frame: frame) == .memory(information))
    }

    @Test func `queue information starts with the count and 64 bytes for each queue`() throws {
        let queue = PeerQueueInformation.Queue(
            index: 0,
            size: 256,
            flags: [.enabled, .started],
            notifyIndex: 0,
            descriptorArea: 0x239_0000,
            driverArea: 0x239_1000,
            deviceArea: 0x239_1240
        )
        let information = PeerQueueInformation(total: 2, queues: [queue, queue])
        let first = bytes(
            """
            0200 02000000 0000 0001 0300 0000 0000 0000 00000000 0000390200000000
            0010390200000000 4012390200000000 0000000000000000
            """
        )
        let frame = DeviceMessage.queues(information).frame
        #expect(frame.count == 134)
        #expect(frame.starts(with: first + [UInt8](repeating: 0, count: 16)))
        #expect(try DeviceMessage(frame: frame) == .queues(information))
    }

    @Test func `logging messages`() throws {
        let base = DirtyPageLogging.base(address: 0x80_0020_0000, size: 0x2000)
        #expect(
            DeviceMessage.logging(base).frame == bytes("0302 0000200080000000 0020000000000000")
        )
        let bar = DirtyPageLogging.bar(offset: 0x20_0000, size: 0x2000, bar: 4)
        for logging in [base, bar, .on, .off] {
            let frame = DeviceMessage.logging(logging).frame
            #expect(try DeviceMessage(frame: frame) == .logging(logging))
        }
    }

    // MARK: bad frames

    @Test(arguments: [
        [], [0], [1], [0, 2], [0, 255], [1, 2], [2, 1], [3, 4], [4, 0], [255, 255],
    ])
    func `HI-G1: a frame without class and command, or with unknown ones, is unknown`(
        frame: [UInt8]
    ) {
        #expect(refusalID { _ = try DeviceMessage(frame: frame) } == "vpci/unknown")
    }

    @Test(arguments: [[], [0], [4, 0], [0, 2], [1, 2], [2, 1], [3, 4], [255, 255]])
    func `HI-G32: a frame that is short or unknown is unknown to the device`(frame: [UInt8]) {
        #expect(refusalID { _ = try DriverMessage(frame: frame) } == "vpci/unknown")
    }

    @Test(arguments: [[0, 1], [1, 0], [2, 0], [3, 0], [3, 1], [3, 2], [3, 3]])
    func `HI-G30, VPN-D-21: what only a device may say is refused from the driver`(
        frame: [UInt8]
    ) {
        #expect(throws: ControlFrameError.direction(class: frame[0], command: frame[1])) {
            try DriverMessage(frame: frame)
        }
    }

    @Test(arguments: [[0, 0, 0], [1, 1], [1, 1, 1, 2, 3, 4, 5, 6, 7], [1, 1] + [UInt8](0..<13)])
    func `VPN-D-21: a driver's message of the wrong length is refused`(frame: [UInt8]) {
        #expect(refusalID { _ = try DriverMessage(frame: frame) } == "vpci/cut")
    }

    @Test func `HI-G10: memory information that ends early is cut, wherever it ends`() {
        let frame = DeviceMessage.memory(memory(regions: 2)).frame
        for length in 2..<frame.count {
            #expect(
                refusalID { _ = try DeviceMessage(frame: Array(frame.prefix(length))) }
                    == "vpci/cut"
            )
        }
    }

    @Test func `HI-G10: queue information that ends inside an entry is cut`() throws {
        let frame = DeviceMessage.queues(queues(2)).frame
        for length in [2, 3, 5, 7, 69, 71, 133] {
            #expect(
                refusalID { _ = try DeviceMessage(frame: Array(frame.prefix(length))) }
                    == "vpci/cut"
            )
        }
    }

    @Test(arguments: [0, 33, UInt32.max])
    func `a table of no regions or of too many is refused before anything is kept`(
        count: UInt32
    ) {
        var frame = DeviceMessage.memory(memory(regions: 1)).frame
        frame.replaceSubrange(14..<18, with: littleEndian(count))
        #expect(throws: ControlFrameError.regionCount(count)) { try DeviceMessage(frame: frame) }
    }

    @Test(arguments: [0, 1, 39, UInt16.max])
    func `VPN-M-14: an entry size below the known entry, or beyond the message, is refused`(
        size: UInt16
    ) {
        var frame = DeviceMessage.memory(memory(regions: 2)).frame
        frame.replaceSubrange(12..<14, with: littleEndian(size))
        #expect(throws: ControlFrameError.self) { try DeviceMessage(frame: frame) }
    }

    @Test func `VPN-M-14: entries are stepped by the size that the message states`() throws {
        let known = memory(regions: 2)
        var grown = DeviceMessage.memory(known).frame
        grown.append(contentsOf: [UInt8](repeating: 0xbb, count: 8))
        grown.insert(contentsOf: [UInt8](repeating: 0xaa, count: 8), at: 82)
        grown.replaceSubrange(12..<14, with: [48, 0])
        #expect(try DeviceMessage(frame: grown) == .memory(known))
    }

    @Test func `VPN-M-14: unknown flags are carried and do no harm`() throws {
        var known = memory(regions: 1)
        known.flags = .init(rawValue: 0xffff_fffc)
        known.regions[0].flags = .init(rawValue: UInt32.max)
        #expect(try DeviceMessage(frame: DeviceMessage.memory(known).frame) == .memory(known))
    }

    @Test(arguments: [0, 1] as [UInt32])
    func `HI-G5: a queue count of 0, or below what is described, is refused`(total: UInt32) {
        var frame = DeviceMessage.queues(queues(2)).frame
        frame.replaceSubrange(2..<6, with: littleEndian(total))
        #expect(throws: ControlFrameError.queueCount(announced: total, described: 2)) {
            try DeviceMessage(frame: frame)
        }
    }

    @Test func `HI-G5: an announced count without entries is refused`() {
        #expect(throws: ControlFrameError.queueCount(announced: .max, described: 0)) {
            try DeviceMessage(frame: [2, 0] + littleEndian(UInt32.max))
        }
    }

    @Test func `HI-G9: a log message that ends early is cut`() {
        let frame = DeviceMessage.logging(.bar(offset: 0, size: 4096, bar: 4)).frame
        for length in 2..<frame.count {
            #expect(
                refusalID { _ = try DeviceMessage(frame: Array(frame.prefix(length))) }
                    == "vpci/cut"
            )
        }
    }

    // MARK: parts

    @Test func `VPN-D-14: parts of queue information hold each queue once and fit 4096 bytes`() {
        let all = queues(200).queues
        let parts = PeerQueueInformation.parts(of: all)
        #expect(parts.count == 4)
        #expect(parts.flatMap(\.queues) == all)
        for part in parts {
            #expect(part.total == 200)
            #expect(DeviceMessage.queues(part).frame.count <= 4096)
        }
        #expect(PeerQueueInformation.parts(of: []).isEmpty)
    }

    @Test func `random frames are taken or refused, and what is taken survives a round trip`() {
        var taken = 0
        for _ in 0..<20_000 {
            var frame = (0..<Int.random(in: 0...300)).map { _ in UInt8.random(in: 0...255) }
            if frame.count > 1 {
                frame[0] = UInt8.random(in: 0...4)
                frame[1] = UInt8.random(in: 0...4)
            }
            if let message = try? DeviceMessage(frame: frame) {
                taken += 1
                #expect((try? DeviceMessage(frame: message.frame)) == message)
            }
            if let message = try? DriverMessage(frame: frame) {
                #expect(message.frame == frame)
            }
        }
        #expect(taken > 0)
    }

    // MARK: helpers

    private func memory(regions count: UInt64) -> PeerMemoryInformation {
        PeerMemoryInformation(
            location: .bar(2),
            windowOffset: 0,
            windowSize: 0x10000,
            generation: 7,
            regions: (0..<count).map {
                .init(
                    guestAddress: $0 * 0x2000,
                    size: 0x1000,
                    userAddress: 0,
                    barOffset: $0 * 0x1000
                )
            }
        )
    }

    private func queues(_ count: UInt16) -> PeerQueueInformation {
        PeerQueueInformation(
            total: UInt32(count),
            queues: (0..<count).map {
                .init(
                    index: $0,
                    size: 256,
                    flags: [.enabled],
                    notifyIndex: $0,
                    nextAvailable: 5,
                    descriptorArea: 0x1000,
                    driverArea: 0x2000,
                    deviceArea: 0x3000,
                    features: 1 << 32
                )
            }
        )
    }
}

/// The stable id of the error that `body` ends with, `nil` when it succeeds.
private func refusalID(_ body: () throws -> Void) -> String? {
    do {
        try body()
        return nil
    } catch {
        return (error as? ControlFrameError)?.id ?? "\(error)"
    }
}

private func littleEndian<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    var writer = WireWriter()
    writer.integer(value)
    return writer.bytes
}

/// Bytes from hexadecimal digits; white space has no meaning.
private func bytes(_ hexadecimal: String) -> [UInt8] {
    let digits = hexadecimal.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}
