internal import GuestMemory
internal import HostSystem
internal import PCI
internal import Virtio
internal import VirtioSpec
internal import Virtqueue

/// The device while it is driven: brought up again for each check, with rings of the check's own.
final class CheckedDevice {
    /// Size of the rings.
    static let ringSize: UInt16 = 16
    /// Frame that is sent: broadcast, of the ethertype for local experiments, behind a network
    /// header of 12 zero bytes.
    static let frameLength = 12 + 60

    /// Length of the number behind the ethertype by which a frame is known again.
    static let stampLength = 4

    let function: any PCIFunction
    let registers: DeviceRegisters
    let transport: PCITransport
    let arena: DMAArena
    let frame: DMABuffer
    private var stamp = UInt32.random(in: 0...UInt32.max)
    private(set) var receive: ProbeRing?
    private(set) var transmit: ProbeRing?

    init(_ function: any PCIFunction, _ registers: DeviceRegisters) throws {
        self.function = function
        self.registers = registers
        transport = try PCITransport(function: function)
        arena = try transport.makeArena(size: 1 << 16)
        guard let frame = arena.allocate(Self.frameLength) else {
            throw VirtioError.noRoom("a frame")
        }
        var bytes = [UInt8](repeating: 0, count: Self.frameLength)
        for index in 12..<18 { bytes[index] = 0xff }
        bytes[18] = 0x02
        (bytes[24], bytes[25]) = (0x88, 0xb5)
        for index in 26..<Self.frameLength { bytes[index] = UInt8(index) }
        frame.write(bytes)
        self.frame = frame
    }

    /// Frames can be sent.
    var isNet: Bool { transport.deviceType == .net }

    /// The device took no frame at all (DEV-Q-03): what rests on that is not worth a line of its own.
    var takesNothing = false

    /// Says why a check that needs traffic is left out; `nil` when it need not be.
    var withoutTraffic: String? {
        if !isNet { return "frames need a virtio-net device, this is \(transport.deviceType)" }
        return takesNothing ? "no frame is taken, see DEV-Q-03" : nil
    }

    /// Resets the device and brings it up to DRIVER_OK with queues 0 and 1.
    func start(
        wanted: FeatureBits = [],
        receiveVector: UInt16? = nil,
        transmitVector: UInt16? = nil
    ) throws -> (features: FeatureBits, receive: ProbeRing, transmit: ProbeRing) {
        try stop()
        let receive = try ProbeRing(transport, queue: 0, size: Self.ringSize, arena: arena)
        self.receive = receive
        let transmit = try ProbeRing(transport, queue: 1, size: Self.ringSize, arena: arena)
        self.transmit = transmit
        let features = try DriverHandshake.run(transport, wanted: wanted.union(.accessPlatform)) {
            (_) throws(VirtioError) in
            try transport.enableQueue(0, receive.configuration, vector: receiveVector)
            try transport.enableQueue(1, transmit.configuration, vector: transmitVector)
        }
        return (features, receive, transmit)
    }

    /// Resets the device and takes its rings away.
    func stop() throws {
        try transport.reset()
        receive?.release()
        transmit?.release()
        receive = nil
        transmit = nil
    }

    /// Gives the frame a number that it did not have before.
    func stampFrame() {
        stamp &+= 1
        var writer = WireWriter()
        writer.integer(stamp)
        frame.write(writer.bytes, at: 26)
    }

    /// Sends one frame and waits for it; what came back.
    func send(_ ring: ProbeRing, head: UInt16 = 0) throws -> (id: UInt32, length: UInt32)? {
        ring.setDescriptor(head, frame.deviceAddress, UInt32(frame.length))
        ring.offer([head])
        try ring.kick()
        return ring.take(1).first
    }

    /// After everything: status 0, memory given back. What went wrong, if anything: memory of a
    /// device that does not reset stays mapped until the function is closed, which keeps it from harm.
    func leaveInReset() -> (any Error)? {
        do {
            try stop()
            try transport.releaseArena(arena)
            return nil
        } catch {
            return error
        }
    }
}
