import FunctionSupport
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
    let function: TamperedFunction<NetStation>
    let loop: EventLoop
    let driver: NetDriver
    var events: [NetEvent] = []

    init(
        _ station: NetStation = NetStation(address: NetRig.address),
        _ options: NetOptions = .init(ringSize: 16),
        vectors: Int? = nil,
        bend: (TamperedFunction<NetStation>) -> Void = { _ in }
    ) throws {
        self.station = station
        function = try TamperedFunction(station, vectors: vectors)
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
