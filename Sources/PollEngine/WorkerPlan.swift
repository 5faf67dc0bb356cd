/// What a worker is to do, settled before it starts.
struct WorkerPlan: Sendable {
    /// CPU to run on.
    var core: Int
    /// What to do in turns without packets.
    var idle: IdleStrategy
    /// Size of generated frames in bytes.
    var packetSize: Int
    /// Generated frames a second and port; `nil` for as many as find buffers.
    var rate: UInt64?
    /// Key of the switch's table.
    var tableKey: UInt64
    /// How long the switch remembers a silent station.
    var maximumAgeSeconds: UInt64 = 300
}
