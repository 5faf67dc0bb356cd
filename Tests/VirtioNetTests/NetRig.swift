import Glibc
import GuestMemory
import HostSystem
import NetSupport
import PCI
import PollEngine
import Testing
import Virtio
import VirtioNet
import VirtioSpec
import Virtqueue

/// A station behind a PCI function of this process, and the driver of it.
final class NetRig {
    static let address: [UInt8] = [2, 0, 0, 0, 0, 7]

    let station: NetStation
    let endpoint: VirtioPCIFunction
    let function: BentFunction
    let loop: EventLoop
    let driver: NetDriver
    var events: [NetEvent] = []

    init(
        _ station: NetStation = NetStation(address: NetRig.address),
        _ options: NetOptions = .init(ringSize: 16),
        vectors: Int? = nil,
        bend: (BentFunction) -> Void = { _ in }
    ) throws {
        self.station = station
        endpoint = try VirtioPCIFunction(device: station, vectorCount: vectors)
        function = BentFunction(InProcessFunction(endpoint: endpoint))
        loop = try EventLoop()
        let transport = try PCITransport(function: function)
        transport.resetLimit = 50
        driver = NetDriver(transport: transport, loop: loop, options: options)
        driver.controlLimit = 50
        driver.onEvent = { [weak self] event in self?.events.append(event) }
        bend(function)
    }

    /// Serves what is ready, also what follows from that.
    func turn() throws {
        for _ in 0..<8 { try loop.turn(limitMilliseconds: 0) }
    }

    /// A port over the first pair, whose doorbells have been served.
    func port() throws -> DevicePort {
        let pairs = driver.takePairs()
        let port = try DevicePort(try #require(pairs.first))
        try turn()
        return port
    }
}

/// Everything goes to another function, but for what a test changes.
final class BentFunction: PCIFunction {
    let base: InProcessFunction
    /// Changes what a register reads: BAR, offset, width, true value.
    var answer: ((Int, UInt64, AccessWidth, UInt32) -> UInt32)?
    /// Everything reads ones and takes nothing.
    var isGone = false
    /// Register accesses so far.
    private(set) var accesses = 0
    /// Values written to the status register.
    private(set) var statuses: [UInt32] = []
    /// Arenas that were made and not given back.
    private(set) var arenas = 0

    init(_ base: InProcessFunction) {
        self.base = base
    }

    func readConfiguration(_ offset: Int, _ width: AccessWidth) throws(PCIError) -> UInt32 {
        isGone ? Self.ones(width) : try base.readConfiguration(offset, width)
    }

    func writeConfiguration(
        _ offset: Int,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        if !isGone { try base.writeConfiguration(offset, width, value) }
    }

    func barSize(_ bar: Int) throws(PCIError) -> UInt64 { try base.barSize(bar) }

    func readRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth
    ) throws(PCIError) -> UInt32 {
        accesses += 1
        if isGone { return Self.ones(width) }
        let value = try base.readRegister(bar, offset, width)
        return answer?(bar, offset, width, value) ?? value
    }

    func writeRegister(
        _ bar: Int,
        _ offset: UInt64,
        _ width: AccessWidth,
        _ value: UInt32
    ) throws(PCIError) {
        accesses += 1
        if isGone { return }
        if bar == 0, offset == UInt64(CommonConfiguration.deviceStatus.offset) {
            statuses.append(value)
        }
        try base.writeRegister(bar, offset, width, value)
    }

    func mapWindow(_ bar: Int, offset: UInt64, size: UInt64) throws(PCIError) -> BARWindow {
        try base.mapWindow(bar, offset: offset, size: size)
    }

    func doorbell(_ bar: Int, _ offset: UInt64, value: UInt16) throws(PCIError) -> Doorbell {
        try base.doorbell(bar, offset, value: value)
    }

    func connectInterrupt(_ vector: Int, to event: EventFD?) throws(PCIError) {
        try base.connectInterrupt(vector, to: event)
    }

    var interruptVectorCount: Int { get throws(PCIError) { try base.interruptVectorCount } }

    func mapDMA(_ arena: DMAArena) throws(PCIError) { try base.mapDMA(arena) }

    func unmapDMA(_ arena: DMAArena) throws(PCIError) { try base.unmapDMA(arena) }

    func makeArena(size: Int) throws(PCIError) -> DMAArena {
        let arena = try base.makeArena(size: size)
        arenas += 1
        return arena
    }

    func releaseArena(_ arena: DMAArena) throws(PCIError) {
        try base.releaseArena(arena)
        arenas -= 1
    }

    func reset() throws(PCIError) { try base.reset() }

    private static func ones(_ width: AccessWidth) -> UInt32 {
        .max >> UInt32(32 - 8 * width.rawValue)
    }
}
